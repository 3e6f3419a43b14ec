//! What the processes of a server know in common: a record per tenant, and the unwrapped data keys
//! themselves.
//!
//! All of it is plain memory of fixed size, so that it can lie in PostgreSQL's shared memory. Where
//! the library isn't preloaded, the same code runs on memory of one process, without room for data
//! keys: everything works, with more KMS calls. [`table::SharedKeyring`] is the whole, under its
//! lock.

pub mod brake;
mod budget;
pub mod call;
mod circuit_breaker;
pub mod counters;
pub mod data_keys;
pub mod history;
pub mod identity;
pub mod learned;
pub mod limits;
pub mod now;
pub mod outcome;
pub mod record;
pub mod renewal;
pub mod renewal_state;
pub mod single_flight;
pub mod stats;
pub mod table;
pub mod tag;
mod telling;
#[cfg(test)]
mod tests;
pub mod uses;
