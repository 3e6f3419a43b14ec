//! What is known of tenants' keys, and of the server: never key bytes. Also `cmk.reset_stats`.
//!
//! The functions behind views are everybody's, and have rows for the views only: they ask for the
//! word in `cmk.home`, which takes the right to read that table, or a view.

use crate::pg::datum::required;
use crate::pg::identity;
use crate::pg::process::{THIS_PROCESS, keyring};
use crate::pg::registry::{invalidation, read};
use crate::pg::report::{IntoSql, SqlResult};
use crate::pg::settings::values;
use crate::pg::shared_memory::access;
use crate::pg::{clock, holders, report};
use cmk_error::{Error, KeyState, Reason};
use cmk_keyring::process::Process;
use cmk_keyring::shared::identity::Subject;
use cmk_keyring::shared::record::{LastState, Record, Warning};
use cmk_keyring::tenant::TenantState;
use cmk_kms::CustomerKey;
use pgrx::PgTupleDesc;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;
use std::sync::atomic::Ordering::Relaxed;

const NANOS: f64 = 1e9;
const MICROS: f64 = 1e6;

/// How long a monitor is taken to be at work after it was last seen, beyond the longest KMS call:
/// it may have to wait for somebody's lock.
const AT_WORK: u64 = 30_000_000_000;

/// Whether a view calls.
pub(super) fn is_view(pass: &pgrx::Uuid) -> SqlResult<bool> {
    read::is_pass(pass.as_bytes()).into_sql()
}

/// The state of a tenant's key and what it cost so far, times in seconds since the Unix epoch. The
/// view `cmk.status` is made of it, and passes what stands in the tenant's row: to read that again
/// for each of its rows would take longer than all the rest. Its row type has a name, which
/// `sql/views.sql` gives it: PostgreSQL would put another together anew for each row.
#[pg_extern(sql = false)]
#[allow(clippy::type_complexity)] // the row type of the SQL function
fn key_status(
    tenant: &str,
    key_uri: &str,
    options: &str,
    epoch: i64,
    pass: pgrx::Uuid,
    call: pg_sys::FunctionCallInfo,
) -> std::result::Result<
    TableIterator<
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
            name!(is_first, bool),
            name!(dark_since, Option<f64>),
            name!(warnings, Option<Vec<&'static str>>),
            name!(worst_case, Option<f64>),
        ),
    >,
    ErrorReport,
> {
    if !is_view(&pass)? {
        return Ok(TableIterator::empty());
    }
    if !is_filled_here(call) {
        return Err(Error::new(Reason::RegistryUnusable)).into_sql();
    }
    keyring().flush_hits(&THIS_PROCESS);
    let (record, holders) = record_of(tenant);
    // A row that nobody can make sense of, or a registry that isn't ours, has no key.
    let is_ours = read::require_at_home().is_ok();
    let key = CustomerKey::parse(key_uri, options, epoch).ok().filter(|_| is_ours);
    let subject =
        |key: &CustomerKey| Subject::with_key(record.id, identity::database(), key, epoch);
    let is_same_key = key.as_ref().is_some_and(|key| record.is_of(&subject(key)));
    // What is known of another key says nothing of the one that the tenant has now.
    let last = record.last_state().filter(|_| is_same_key);
    let warnings = record.warnings.all().filter(|_| is_same_key && is_watched());
    let stats = record.stats;
    let error = last.as_ref().and_then(|last| last.error.as_ref());
    let time = |micros: i64| (micros != 0).then_some(micros as f64 / MICROS);
    Ok(TableIterator::once((
        last.as_ref().map(|last| last.key_state().name()),
        error.map(|error| error.reason.name()),
        error.and_then(|error| report::info_of(error, &record, 0)),
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
        record.history.changes <= 1,
        last.as_ref().and_then(|last| dark_since(last, &record)),
        warnings.map(|warnings| warnings.map(Warning::name).collect()),
        key.map(|key| worst_case(&key)),
    )))
}

/// Whether the row type of the function is the one that [`key_status`] fills. Its owner could have
/// changed it, or another version of the extension.
fn is_filled_here(call: pg_sys::FunctionCallInfo) -> bool {
    use pg_sys::{BOOLOID, FLOAT8OID, INT4OID, INT8OID, TEXTARRAYOID, TEXTOID};
    const TYPES: [&[pg_sys::Oid]; 8] = [
        &[TEXTOID; 3],
        &[FLOAT8OID; 3],
        &[INT8OID; 6],
        &[FLOAT8OID; 3],
        &[INT4OID, BOOLOID, BOOLOID],
        &[FLOAT8OID],
        &[TEXTARRAYOID],
        &[FLOAT8OID],
    ];
    // SAFETY: the call of the function that we are in; a catalog look-up on the main thread, whose
    // result is released with the descriptor.
    let row = unsafe {
        let of = pg_sys::get_fn_expr_rettype((*call).flinfo);
        if of == pg_sys::InvalidOid {
            return false;
        }
        PgTupleDesc::from_pg(pg_sys::lookup_rowtype_tupdesc(of, -1))
    };
    let found = row.iter().map(|column| (!column.attisdropped).then_some(column.atttypid));
    found.eq(TYPES.into_iter().flatten().map(|of| Some(*of)))
}

/// Since when no process of the server can open the tenant's values, as far as its key decides; of
/// this process alone where nothing is shared.
fn dark_since(last: &LastState, record: &Record) -> Option<f64> {
    let error = last.error.as_ref()?;
    let (now, warm_until) = (clock::now(), record.warm_until(values::ttl()));
    let dark = match last.key_state() {
        KeyState::Usable => return None,
        KeyState::Revoked => last.since,
        // Others may fare better; and what is at hand serves until it expires.
        _ if error.concerns_one_process() && access::is_shared() => return None,
        _ if warm_until > now => return None,
        _ => last.since.max(clock::wall() - ((now - warm_until) / 1_000) as i64),
    };
    Some(dark as f64 / MICROS)
}

/// The longest that values can be opened after the owner revoked the key, KMS's own delay aside, in
/// seconds. An STS session of an assumed role outlives the role's withdrawal by up to 15 minutes.
fn worst_case(key: &CustomerKey) -> f64 {
    const STS_SESSION: f64 = 900.0;
    let session = if key.assumes_role() { STS_SESSION } else { 0.0 };
    values::ttl() as f64 / NANOS + session
}

/// Whether a monitor of this database is at work.
fn is_watched() -> bool {
    let seen_at = access::counters().monitor_seen_at(identity::database());
    let longest = values::call_timeout().as_nanos() as u64 + AT_WORK;
    seen_at.is_some_and(|at| clock::now() < at.saturating_add(longest))
}

/// The server, as far as this extension goes. The view `cmk.server` is made of it.
#[pg_extern(schema = "cmk", volatile, strict, parallel_restricted)]
#[allow(clippy::type_complexity)] // the row type of the SQL function
fn server_facts(
    pass: pgrx::Uuid,
) -> std::result::Result<
    TableIterator<
        'static,
        (
            name!(preloaded, bool),
            name!(keyring_worker, bool),
            name!(monitor_configured, bool),
            name!(watched, bool),
            name!(cache_ttl, f64),
            name!(promised_bound, Option<f64>),
            name!(tenants_forgotten, i64),
            name!(dropped_for_room, i64),
            name!(hits, i64),
            name!(misses, i64),
            name!(kms_calls, i64),
            name!(kms_failures, i64),
            name!(waits, i64),
            name!(refused, i64),
        ),
    >,
    ErrorReport,
> {
    if !is_view(&pass)? {
        return Ok(TableIterator::empty());
    }
    keyring().flush_hits(&THIS_PROCESS);
    let counters = access::counters();
    let mut totals = counters.past();
    access::in_chunks(|range| totals.add(&access::read(|shared| shared.totals(range.clone()))));
    let [hits, misses, kms_calls, kms_failures, waits, refused] = totals.0.map(|it| it as i64);
    Ok(TableIterator::once((
        access::is_shared(),
        access::has_worker(),
        values::monitor_databases().contains(&report::database_name()),
        is_watched(),
        values::ttl() as f64 / NANOS,
        values::promised_bound().map(|bound| bound.as_secs_f64()),
        counters.recycled.load(Relaxed) as i64,
        counters.dropped_for_room.load(Relaxed) as i64,
        hits,
        misses,
        kms_calls,
        kms_failures,
        waits,
        refused,
    )))
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
            name!(worst_case, f64),
            name!(is_dark, bool),
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
    // Where nothing is shared, other sessions don't know what this one does. A state of the tenant
    // is everybody's, once it is committed.
    let is_revoked = is_shared
        && record.is_of(&THIS_PROCESS.subject(&registered))
        && record.last_state().is_some_and(|last| last.key_state() == KeyState::Revoked);
    let is_closed =
        registered.state != TenantState::Active && !invalidation::has_uncommitted_changes();
    let is_dark = is_revoked || is_closed;
    let worst_case = worst_case(&registered.customer_key);
    Ok(TableIterator::once((lives_on, holders, is_shared, worst_case, is_dark)))
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
