//! The PostgreSQL side: everything that knows a backend. The only `unsafe` outside `crypto::locked` and
//! `runtime` is here, in the files that talk to C.

pub mod backend;
pub mod brake;
pub mod catalog;
pub mod clock;
pub mod cpu;
pub mod datum;
pub mod elog;
pub mod executor;
pub mod expiry;
pub mod grantee;
pub mod guard;
pub mod interrupt;
pub mod invalidation;
mod raw;
pub mod registry;
pub mod report;
mod role;
pub mod settings;
pub mod shmem;
mod undumpable;
mod worker;
pub mod write;

use report::IntoSql;

/// What the library does when it is loaded: names its settings and listens for changes. Nothing starts.
#[pgrx::pg_guard]
#[inline(never)]
pub extern "C-unwind" fn init() {
    undumpable::close(settings::is_preloading());
    settings::define().or_raise();
    invalidation::register_callbacks();
    backend::register_callbacks();
    executor::install();
    guard::install();
    if settings::is_preloading() {
        shmem::reserve();
        worker::register();
    }
}
