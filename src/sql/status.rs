//! What is known of tenants' keys, and what this backend holds in its cache: never key bytes. Also
//! `cmk.warm`, which fills that cache, and `cmk.reset_stats`.

use crate::pg::datum::required;
use crate::pg::identity;
use crate::pg::process::{THIS_PROCESS, keyring};
use crate::pg::registry::read;
use crate::pg::report::{IntoSql, SqlResult};
use crate::pg::settings::values;
use crate::pg::shared_memory::access;
use crate::pg::{clock, expiry_timer, holders};
use cmk_crypto::locked;
use cmk_error::{Error, Reason, Result};
use cmk_keyring::shared::record::Record;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;
use std::collections::HashSet;

const NANOS: f64 = 1e9;
const MICROS: f64 = 1e6;

/// The state of a tenant's key and what it cost so far, times in seconds since the Unix epoch. The
/// view `cmk.status` is made of it.
#[pg_extern(schema = "cmk", volatile, strict, parallel_restricted)]
#[allow(clippy::type_complexity)] // the row type of the SQL function
fn key_status(
    tenant: &str,
) -> TableIterator<
    'static,
    (
        name!(key_state, Option<&'static str>),
        name!(reason, Option<&'static str>),
        name!(info, Option<String>),
        name!(since, Option<f64>),
        name!(last_success, Option<f64>),
        name!(last_failure, Option<f64>),
        name!(hits, i64),
        name!(misses, i64),
        name!(kms_calls, i64),
        name!(kms_failures, i64),
        name!(waits, i64),
        name!(refused, i64),
        name!(p50_ms, Option<f64>),
        name!(p95_ms, Option<f64>),
        name!(p99_ms, Option<f64>),
        name!(holders, Option<i32>),
        name!(server_wide, bool),
    ),
> {
    keyring().flush_hits(&THIS_PROCESS);
    let (record, holders) = record_of(tenant);
    let (last, stats) = (record.last_state(), record.stats);
    let error = last.as_ref().and_then(|last| last.error.as_ref());
    let time = |micros: i64| (micros != 0).then_some(micros as f64 / MICROS);
    TableIterator::once((
        last.as_ref().map(|last| last.key_state().name()),
        error.map(|error| error.reason.name()),
        error.and_then(|error| error.info()).map(str::to_owned),
        last.as_ref().and_then(|last| time(last.since)),
        time(stats.last_success),
        time(stats.last_failure),
        stats.hits as i64,
        stats.misses as i64,
        stats.kms_calls as i64,
        stats.kms_failures as i64,
        stats.waits as i64,
        stats.refused as i64,
        stats.latency.percentile(0.5),
        stats.latency.percentile(0.95),
        stats.latency.percentile(0.99),
        holders,
        access::is_shared(),
    ))
}

/// How long copies of a tenant's data keys live, in seconds. `cmk.revocation_bound` is made of it.
///
/// # Errors
/// `null_argument`, `tenant_name`, `unknown_tenant`.
#[pg_extern(schema = "cmk", volatile, parallel_restricted)]
#[allow(clippy::type_complexity)] // the row type of the SQL function
fn key_copies(
    tenant: Option<&str>,
) -> std::result::Result<
    TableIterator<
        'static,
        (
            name!(lives_on, f64),
            name!(holders, Option<i32>),
            name!(server_wide, bool),
            name!(ttl, f64),
            name!(assumed_role, bool),
        ),
    >,
    ErrorReport,
> {
    let tenant = required(tenant, "tenant").into_sql()?;
    let registered = read::require_tenant(tenant).into_sql()?;
    let is_shared = access::is_shared();
    let ttl = values::ttl() as f64 / NANOS;
    let (record, holders) = record_of(tenant);
    // For other sessions, and for a call whose answer is on its way, only the TTL is a bound.
    let lives_on = match is_shared && !record.is_being_asked(clock::now()) {
        true => record.copies_until.saturating_sub(clock::now()) as f64 / NANOS,
        false => ttl,
    };
    let holders = holders.filter(|_| is_shared);
    let assumed_role = registered.customer_key.assumes_role();
    Ok(TableIterator::once((lives_on, holders, is_shared, ttl, assumed_role)))
}

/// A copy of the tenant's record, and how many processes hold a data key of it; `None` if that
/// can't be known.
fn record_of(tenant: &str) -> (Record, Option<i32>) {
    let id = read::tenant_id(tenant);
    let found = access::read(|shared| shared.find(&id).map(|(tag, record)| (tag, *record)));
    let here = || {
        let entry = keyring().cache().get(tenant);
        entry.is_some_and(|entry| entry.keys.iter().any(|key| key.ready.pin().is_some()))
    };
    match found {
        Some((tag, record)) => {
            let known = clock::now() >= record.holders_known_from;
            let holders = holders::holders(tag).map_or_else(|| i32::from(here()), i32::from);
            (record, known.then_some(holders))
        }
        None => {
            let mut record = Record::default();
            record.copies_until = access::counters().forgotten_copies_until();
            let known = clock::now() >= record.copies_until;
            (record, known.then_some(0))
        }
    }
}

/// Sets the counters of this database's tenants back to zero, at once.
#[pg_extern(schema = "cmk", volatile, parallel_restricted)]
fn reset_stats() {
    keyring().flush_hits(&THIS_PROCESS);
    let database = identity::database();
    access::in_chunks(|range| {
        access::with(|shared| shared.reset_stats(range.clone(), database));
    });
}

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
        name!(dropped_for_room, i64),
        name!(memory_locked, Option<bool>),
        name!(expiry_timer, bool),
    ),
> {
    let (cache, stats) = (keyring().cache(), keyring().stats());
    let memory = locked::protection();
    TableIterator::once((
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
    ))
}
