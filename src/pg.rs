//! The PostgreSQL side: everything that knows a backend. The only `unsafe` outside `crypto::locked` and
//! `runtime` is here, in the files that talk to C.

pub mod backend;
pub mod catalog;
pub mod cpu;
pub mod datum;
pub mod interrupt;
pub mod invalidation;
pub mod registry;
pub mod report;
pub mod settings;
pub mod write;

/// What the library does when it is loaded: names its settings and listens for changes. Nothing starts.
#[pgrx::pg_guard]
#[inline(never)]
pub extern "C-unwind" fn init() {
    settings::define();
    invalidation::register_callbacks();
}
