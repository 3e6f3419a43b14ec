//! Primitives, each a thin, opinionated layer over a RustCrypto crate or the operating system.
//! Nothing here knows a tenant's registry, KMS or PostgreSQL.

pub mod aead;
pub mod commitment;
pub mod key;
pub mod locked;
pub mod nonce;
pub mod pages;
pub mod token;
