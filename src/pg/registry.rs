//! The registry's tables (`sql/registry.sql` declares them): how they are read, changed, locked,
//! and how every process learns of a change.

pub mod invalidation;
pub mod lock;
pub mod read;
pub mod scan;
pub mod tables;
pub mod write;
