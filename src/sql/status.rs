//! What this backend holds in its cache. Never key bytes.

use crate::crypto::locked;
use crate::keyring::Host;
use crate::pg::backend::{Backend, keyring};
use crate::pg::settings;
use pgrx::prelude::*;

const NANOS: f64 = 1e9;

/// One row a cached data key; times in seconds. The view `cmk.cache` is made of it.
#[pg_extern(schema = "cmk", volatile, parallel_restricted)]
#[allow(clippy::type_complexity)] // the row type of the SQL function
fn backend_cache() -> TableIterator<
    'static,
    (
        name!(tenant, String),
        name!(version, i32),
        name!(dek_id, Vec<u8>),
        name!(age_seconds, f64),
        name!(expires_in_seconds, f64),
        name!(hits, i64),
    ),
> {
    let (now, ttl) = (Backend.now(), settings::policy().ttl as f64 / NANOS);
    let mut rows = Vec::new();
    keyring().cache().for_each(|entry| {
        for key in &entry.keys {
            let age = now.saturating_sub(key.unwrapped_at.value()) as f64 / NANOS;
            if age < ttl {
                rows.push((
                    entry.tenant.name.to_string(),
                    key.version,
                    key.dek_id.0.to_vec(),
                    age,
                    ttl - age,
                    key.hits.value() as i64,
                ));
            }
        }
    });
    TableIterator::new(rows)
}

/// Totals of this backend since it started. The view `cmk.cache_stats` is made of it.
#[pg_extern(schema = "cmk", volatile, parallel_restricted)]
#[allow(clippy::type_complexity)] // the row type of the SQL function
fn backend_cache_stats() -> TableIterator<
    'static,
    (
        name!(entries, i64),
        name!(capacity, i64),
        name!(hits, i64),
        name!(misses, i64),
        name!(kms_calls, i64),
        name!(kms_failures, i64),
        name!(evictions, i64),
        name!(memory_locked, Option<bool>),
    ),
> {
    let (cache, stats) = (keyring().cache(), keyring().stats());
    let memory = locked::protection();
    TableIterator::once((
        cache.len() as i64,
        settings::policy().capacity as i64,
        stats.hits.value() as i64,
        stats.misses.value() as i64,
        stats.kms_calls.value() as i64,
        stats.kms_failures.value() as i64,
        cache.evictions() as i64,
        // Unknown until the first data key needed memory.
        (memory.bytes > 0).then_some(memory.locked == memory.bytes),
    ))
}
