//! Key management services: where tenants keep the keys that wrap data keys.
//!
//! A [`CustomerKey`] is parsed once, by the provider that its URI names; from then on whoever has
//! it asks [`Kms`], which answers with a data key or a [`Reason`](cmk_error::Reason). Nothing here
//! knows a registry, a cache or PostgreSQL.
//!
//! | file | holds |
//! |---|---|
//! | [`customer_key`] | which key, and as whom we use it |
//! | [`kms`] | what callers ask |
//! | [`context`] | what a wrapped data key is bound to |
//! | [`options`], [`settings`], [`key_facts`] | options of a key; server settings; what a service tells of a key and of us |
//! | [`onboarding`], [`policies`] | what owners of keys and we have to allow each other, and who says so |
//! | [`provider`], [`providers`] | what a provider is, and which ones this build has |
//! | `local`, `aws` | the providers: one folder and one Cargo feature each |
//! | [`trace`] | what was asked, for an audit trail |
//! | [`concurrent`] | asks for many keys side by side |
//! | `runtime`, `resources` | waits for a network, interruptibly; what a process may lack for it |
//!
//! A new provider is a folder with a [`Provider`](provider::Provider), a field of [`Settings`] and
//! a row in [`PROVIDERS`](providers::PROVIDERS). CONTRIBUTING.md lists what else it touches.

#![deny(missing_docs)]

#[cfg(feature = "aws-names")]
pub mod aws;
pub mod concurrent;
pub mod context;
pub mod customer_key;
pub mod key_facts;
pub mod kms;
#[cfg(feature = "local")]
pub mod local;
pub mod onboarding;
pub mod options;
pub mod policies;
pub mod provider;
pub mod providers;
mod resources;
mod runtime;
pub mod settings;
pub mod trace;

pub use concurrent::{ConcurrentCalls, Wrapped};
pub use context::{EncryptionContext, Purpose};
pub use customer_key::CustomerKey;
pub use key_facts::{Identity, KeyFacts, Management, OwnIdentity, PolicyView};
pub use kms::{Kms, Providers};
pub use onboarding::Onboarding;
pub use provider::Route;
pub use settings::Settings;
