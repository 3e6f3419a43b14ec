//! Which data key a call gets, and for how long: policy, cache, and what the processes of a server
//! share.
//!
//! Generic over the [`process::Process`] it lives in, which has the registry, the clock, KMS and
//! the shared memory. So all of it is tested with plain fields in their place.

#![deny(missing_docs)]

pub mod cache;
pub mod check;
mod fetch;
pub mod keyring;
pub mod policy;
pub mod process;
mod question;
mod refresh;
pub mod rewrap;
mod seal_open;
pub mod shared;
pub mod tenant;
#[cfg(test)]
mod tests;
pub mod trial;
pub mod unwrap;
