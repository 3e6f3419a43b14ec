//! The shared keyring's memory, its lock, and the means to wait for one another. Without
//! `shared_preload_libraries` the same structures are memory of one process.
//!
//! Data keys lie apart from PostgreSQL's shared memory, in a mapping of our own that the postmaster
//! makes and all processes inherit, so that it can be locked and left out of core dumps as a whole.

pub mod access;
pub mod layout;
pub mod startup;
