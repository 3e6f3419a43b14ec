//! What a DBA does: transactions over the registry and KMS.
//!
//! Everything is part of the caller's transaction: a rollback leaves nothing, a commit tells every
//! process.

pub mod data_key;
pub mod grant;
pub mod index_key;
pub mod registry;
pub mod tenant;
