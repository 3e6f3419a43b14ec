//! Primitives, each a thin, opinionated layer over a RustCrypto crate or the operating system.
//! Nothing here knows a tenant's registry, KMS or PostgreSQL.

pub mod aead;
pub mod commitment;
mod derived;
pub mod key;
pub mod locked;
#[cfg(feature = "aws-lc")]
mod long;
pub mod nonce;
pub mod pages;
mod places;
pub mod run;
pub mod scrub;
pub mod token;
