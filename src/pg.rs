//! Glue to PostgreSQL. `sql` declares functions, `admin` calls SPI; everything that is unsafe about
//! the server is here, and so is what the keyring asks of a backend.

mod actor;
pub mod array;
pub mod audit;
mod background;
pub mod brake;
pub mod call;
pub mod clock;
pub mod collation;
pub mod compat;
pub mod cpu;
pub mod datum;
mod descriptors;
pub mod destination;
pub mod elog;
pub mod error_context;
pub mod executor;
pub mod expiry_timer;
pub mod grantee;
pub mod guard;
pub mod holders;
pub mod identity;
pub mod interrupt;
pub mod job_lock;
mod keyring_worker;
mod kms_trail;
pub mod known_protection;
pub mod latest;
mod log_limit;
pub mod monitor;
mod object_lock;
pub mod planner;
pub mod process;
pub mod protected_row;
pub mod protection;
pub mod providers;
pub mod raw;
pub mod registry;
pub mod relation;
mod renewer;
pub mod report;
pub mod running;
pub mod scratch;
pub mod settings;
pub mod shared_memory;
pub mod sort_support;
pub mod statement;
pub mod statement_number;
pub mod statistics;
pub mod table_scan;
pub mod transaction;
pub mod tree;
mod undumpable;

use report::IntoSql;

/// What the library does when it is loaded: names its settings and listens for changes. Nothing
/// starts.
#[pgrx::pg_guard]
#[inline(never)]
pub extern "C-unwind" fn init() {
    let is_preloading = settings::guard::is_preloading();
    settings::guard::note_load();
    report::disable_backtraces();
    undumpable::close(is_preloading);
    settings::declare::define().or_raise();
    registry::invalidation::register_callbacks();
    transaction::register_callbacks();
    executor::install();
    error_context::install();
    guard::install();
    if is_preloading {
        shared_memory::startup::reserve();
        keyring_worker::register();
    }
}
