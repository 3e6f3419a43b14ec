//! The SQL surface: thin functions that convert, call and return. They are declared here, or in
//! `sql/*.sql` where `#[pg_extern]` cannot say it; privileges are in `sql/finalize.sql`.
//!
//! Functions that may ask KMS are PARALLEL RESTRICTED: a parallel worker is a new process with an
//! empty cache, so each would ask KMS again. Administration is PARALLEL UNSAFE.

// pgrx keeps an error's code, detail and hint only if it is returned as its own, large, type.
#![allow(clippy::result_large_err)]

mod audit;
#[cfg(feature = "bench")]
mod bench;
mod cache;
mod column;
mod encrypt;
mod grant;
mod identity;
mod index_key;
mod inspect;
mod maintenance;
mod onboarding;
mod retire;
mod rewrap;
mod status;
mod tenant;
#[cfg(any(test, feature = "pg_test"))]
mod tests;
mod token;
mod verify;

/// Tells pgrx of the schema that `sql/registry.sql` creates.
#[pgrx::pg_schema]
mod cmk {}
