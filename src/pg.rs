//! Glue to PostgreSQL. `sql` declares functions, `admin` calls SPI; everything that is unsafe about
//! the server is here, and so is what the keyring asks of a backend.

pub mod array;
mod background;
pub mod brake;
pub mod call;
pub mod clock;
pub mod collation;
pub mod compat;
pub mod cpu;
pub mod datum;
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
mod keyring_worker;
pub mod known_protection;
mod monitor;
pub mod planner;
pub mod process;
pub mod protected_row;
pub mod protection;
mod providers;
pub mod raw;
pub mod registry;
pub mod report;
pub mod running;
pub mod scratch;
pub mod settings;
pub mod shared_memory;
pub mod sort_support;
pub mod statement;
pub mod table_scan;
mod transaction;
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
