//! Watches the keys of one database's tenants; one background worker per database.

pub mod checks;
mod events;
pub mod launch;
mod rotation;
mod schedule;
mod scout;
pub mod session;
pub mod tenants;
mod watch;

pub use rotation::{Rotate, Uses, install};
