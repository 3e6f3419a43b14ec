//! The audit trail: verified, joined with CloudTrail, and written by functions in SQL.

use crate::admin::audit::{Act, record_once};
use crate::admin::audit_trail;
use crate::pg::datum::{AnyJsonb, required};
use crate::pg::report::{IntoSql, SqlResult};
use crate::pg::transaction;
use cmk_audit::cloudtrail::Match;
use cmk_audit::event::EVERY_TENANT;
use cmk_error::{Error, Reason};
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

/// `cmk_internal.audit`, declared in `sql/audit.sql`.
#[pg_extern(sql = false)]
fn audit(
    act: Option<&str>,
    tenant: Option<&str>,
    data_key: Option<i32>,
    before: Option<AnyJsonb>,
    after: Option<AnyJsonb>,
) -> SqlResult<()> {
    let record = || {
        let tenant = required(tenant, "tenant")?;
        let said = |json: Option<AnyJsonb>| {
            json.map(|json| json.parse().ok_or_else(|| Error::new(Reason::AuditTrail))).transpose()
        };
        let (before, after) = (said(before)?, said(after)?);
        record_once(&Act {
            act: required(act, "act")?,
            tenant: (tenant != EVERY_TENANT).then_some(tenant),
            data_key,
            before,
            after,
        });
        Ok(())
    };
    record().into_sql()
}

/// `cmk_internal.is_own_change`, declared there, too.
#[pg_extern(sql = false)]
fn is_own_change(xmin: pgrx::pg_sys::TransactionId) -> bool {
    transaction::is_own(xmin)
}

#[pg_extern(schema = "cmk", stable, parallel_unsafe, security_definer)]
#[search_path(pg_catalog, pg_temp)]
#[allow(clippy::type_complexity)] // the row type of the SQL function
fn verify_audit(
    tenant: default!(Option<&str>, "NULL"),
) -> Result<
    TableIterator<
        'static,
        (
            name!(tenant, String),
            name!(origin, String),
            name!(events, i64),
            name!(first_number, Option<i64>),
            name!(last_number, Option<i64>),
            name!(first_at, Option<TimestampWithTimeZone>),
            name!(last_at, Option<TimestampWithTimeZone>),
            name!(last_hash, Option<Vec<u8>>),
            name!(status, &'static str),
            name!(wrong_at, Option<i64>),
        ),
    >,
    ErrorReport,
> {
    let verified = audit_trail::verify(tenant).into_sql()?;
    Ok(TableIterator::new(verified.into_iter().map(|it| {
        let (first, last, problem) = (it.chain.first, it.chain.last, it.chain.problem);
        (
            it.tenant,
            it.origin,
            it.chain.events,
            first.map(|(number, _)| number),
            last.map(|(number, ..)| number),
            first.and_then(|(_, at)| timestamp(at)),
            last.and_then(|(_, at, _)| timestamp(at)),
            last.map(|(.., hash)| hash.to_vec()),
            problem.map_or("ok", |(problem, _)| problem.name()),
            problem.map(|(_, number)| number),
        )
    })))
}

#[pg_extern(schema = "cmk", stable, parallel_unsafe, security_definer)]
#[search_path(pg_catalog, pg_temp)]
#[allow(clippy::type_complexity)] // the row type of the SQL function
fn match_cloudtrail(
    tenant: Option<&str>,
    events: Option<AnyJsonb>,
    calls: default!(Option<AnyJsonb>, "NULL"),
) -> Result<
    TableIterator<
        'static,
        (
            name!(request_id, String),
            name!(side, &'static str),
            name!(operation, Option<String>),
            name!(at, Option<TimestampWithTimeZone>),
            name!(act, Option<String>),
            name!(explanation, String),
        ),
    >,
    ErrorReport,
> {
    let join = || {
        let tenant = required(tenant, "tenant")?;
        let read = |argument, json: AnyJsonb| {
            json.parse().ok_or_else(|| audit_trail::no_records(tenant, argument))
        };
        let events = read("events", required(events, "events")?)?;
        let calls = calls.map(|calls| read("calls", calls)).transpose()?;
        audit_trail::match_cloudtrail(tenant, &events, calls.as_ref())
    };
    let row = |Match { request_id, side, operation, at, act, explanation }| {
        (request_id, side.name(), operation, at.and_then(timestamp), act, explanation)
    };
    Ok(TableIterator::new(join().into_sql()?.into_iter().map(row)))
}

/// Out of microseconds since the Unix epoch.
fn timestamp(micros: i64) -> Option<TimestampWithTimeZone> {
    const EPOCH_2000: i64 = 946_684_800_000_000;
    TimestampWithTimeZone::try_from(micros - EPOCH_2000).ok()
}
