//! `cmk_encrypt`: column encryption inside PostgreSQL under keys that the tenants own.
//!
//! Layers, each of which may use only those below it (`scripts/check_layers` enforces it):
//! `sql` → `pg` → `runtime`, `kms::aws` → `keyring` → `cache`, `registry`, `kms` → `envelope`, `crypto`
//! → `error`.

pub mod cache;
pub mod crypto;
pub mod envelope;
pub mod error;
pub mod keyring;
pub mod kms;
pub mod registry;
#[cfg(feature = "net")]
pub mod runtime;
