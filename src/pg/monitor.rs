//! Watches the keys of one database's tenants; one background worker per database.

mod events;
pub mod launch;
mod schedule;
mod session;
