//! What this backend holds in its cache, never key bytes; and `cmk.warm`, which fills it.

use super::status::is_view;
use crate::pg::datum::required;
use crate::pg::process::{THIS_PROCESS, keyring};
use crate::pg::report::{IntoSql, SqlResult};
use crate::pg::settings::values;
use crate::pg::shared_memory::access;
use crate::pg::{clock, expiry_timer};
use cmk_crypto::locked;
use cmk_error::{Error, Reason, Result};
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;
use std::collections::HashSet;

const NANOS: f64 = 1e9;

/// Has every data key of these tenants at hand, so that what follows asks no KMS. Returns how many
/// there are.
#[pg_extern(schema = "cmk", volatile, parallel_restricted)]
fn warm(tenants: Option<VariadicArray<'_, &str>>) -> SqlResult<i32> {
    let tenants = required(tenants, "tenants").into_sql()?;
    // More than the cache holds would push one another out, and the caller chooses how many there
    // are.
    if tenants.len() > values::policy().capacity {
        return Err(Error::new(Reason::TooManyNames)).into_sql();
    }
    let names: Result<HashSet<_>> = tenants.iter().map(|name| required(name, "tenants")).collect();
    let mut count = 0;
    for tenant in names.into_sql()? {
        count += keyring().warm(&THIS_PROCESS, tenant).into_sql()?;
    }
    Ok(count as i32)
}

/// One row per cached data key; times in seconds. The view `cmk.cache` is made of it.
#[pg_extern(schema = "cmk", volatile, strict, parallel_restricted)]
#[allow(clippy::type_complexity)] // the row type of the SQL function
fn backend_cache(
    pass: pgrx::Uuid,
) -> std::result::Result<
    TableIterator<
        'static,
        (
            name!(tenant, String),
            name!(version, i32),
            name!(dek_id, Vec<u8>),
            name!(age_seconds, f64),
            name!(expires_in_seconds, f64),
            name!(hits, i64),
        ),
    >,
    ErrorReport,
> {
    if !is_view(&pass)? {
        return Ok(TableIterator::empty());
    }
    let (now, ttl) = (clock::now(), values::ttl() as f64 / NANOS);
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
    Ok(TableIterator::new(rows))
}

/// Totals of this backend since it started. The view `cmk.cache_stats` is made of it.
#[pg_extern(schema = "cmk", volatile, strict, parallel_restricted)]
#[allow(clippy::type_complexity)] // the row type of the SQL function
fn backend_cache_stats(
    pass: pgrx::Uuid,
) -> std::result::Result<
    TableIterator<
        'static,
        (
            name!(entries, i64),
            name!(capacity, i64),
            name!(hits, i64),
            name!(misses, i64),
            name!(kms_calls, i64),
            name!(kms_failures, i64),
            name!(dropped_for_room, i64),
            name!(memory_locked, Option<bool>),
            name!(expiry_timer, bool),
        ),
    >,
    ErrorReport,
> {
    if !is_view(&pass)? {
        return Ok(TableIterator::empty());
    }
    let (cache, stats) = (keyring().cache(), keyring().stats());
    let memory = locked::protection();
    Ok(TableIterator::once((
        cache.len() as i64,
        values::policy().capacity as i64,
        stats.hits.value() as i64,
        stats.misses.value() as i64,
        stats.kms_calls.value() as i64,
        stats.kms_failures.value() as i64,
        cache.dropped_for_room() as i64,
        // Unknown until the first data key needed memory.
        (memory.bytes > 0)
            .then_some(memory.locked == memory.bytes && access::data_keys_are_locked()),
        expiry_timer::has_timer(),
    )))
}
