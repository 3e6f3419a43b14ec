//! Which data key a call gets, and for how long: policy, cache, and what processes share.

pub mod cache;
mod fetch;
mod flight;
mod host;
mod keyring;
mod operations;
pub mod shared;
pub mod tenant;
#[cfg(test)]
mod tests;

pub use host::{Host, Policy};
pub use keyring::{Keyring, Stats};
