//! What a DBA does: transactions over the registry and KMS.
//!
//! Everything is part of the caller's transaction: a rollback leaves nothing, a commit tells every
//! process.

pub mod audit;
pub mod audit_trail;
pub mod data_key;
pub mod grant;
pub mod index_key;
pub mod onboarding;
pub mod reencrypt;
pub mod registry;
pub mod retire;
pub mod rewrap;
pub mod rotation;
pub mod shred;
pub mod tenant;
pub mod verify;
