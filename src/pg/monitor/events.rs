//! Makes changes of keys known: a row in `cmk.key_event` and a NOTIFY of its id on
//! `cmk_key_events`, on a primary; and for warnings a line in the log. (A change of state is logged
//! by the process that saw it.)

use super::session::try_transaction;
use crate::pg::latest::with_snapshot;
use crate::pg::registry::tables::KEY_EVENT;
use crate::pg::registry::{lock, write};
use crate::pg::shared_memory::access;
use crate::pg::{clock, elog, identity, report};
use cmk_error::{Error, KeyState, Reason, Result, quoted};
use cmk_keyring::shared::history::PastChange;
use cmk_keyring::shared::identity::TenantId;
use cmk_keyring::shared::record::{Record, Warning};
use cmk_kms::KeyFacts;
use pgrx::pg_sys;
use std::collections::HashMap;

/// Days before imported key material expires from which to warn.
const EXPIRY_NOTICE: i64 = 30;
const DAY: i64 = 86_400;

/// A row of `cmk.key_event`.
struct Event<'a> {
    tenant: &'a str,
    /// The state entered, or the warning.
    event: &'a str,
    was: Option<&'a str>,
    reason: Option<&'a str>,
    info: Option<String>,
    /// Seconds since the Unix epoch.
    at: f64,
}

/// When an event is written down.
#[derive(Clone, Copy, PartialEq)]
enum When {
    Always,
    /// Unless the last row about the tenant's state says the same, and of a revoked key why;
    /// without a row the key was usable.
    StateDiffers,
    /// Unless the last row of its kind says the same.
    InfoDiffers,
}

/// Makes every change of state known since the last one that was. False if an ERROR kept one from
/// being written.
pub fn announce<'a, N: Iterator<Item = (TenantId, &'a str)>>(tenants: impl Fn() -> N) -> bool {
    if write::in_recovery() {
        return true;
    }
    let mut changed: Vec<Record> = Vec::new();
    access::in_chunks(|range| {
        let database = identity::database();
        changed.extend(access::read(|shared| shared.unannounced(range.clone(), database)));
    });
    if changed.is_empty() {
        return true;
    }
    let names: HashMap<TenantId, &str> = tenants().collect();
    let mut written = true;
    for record in changed {
        let Some(name) = names.get(&record.id) else { continue };
        match try_transaction(|| publish_changes(name, &record)) {
            Some(Ok(())) => access::with(|shared| shared.announced(&record)),
            Some(Err(_)) => {}
            None => written = false,
        }
    }
    written
}

fn publish_changes(tenant: &str, record: &Record) -> Result<()> {
    let mut changes = record.history.unannounced().peekable();
    while let Some(PastChange { at, change, reason }) = changes.next() {
        let is_last = changes.peek().is_none();
        let event = Event {
            tenant,
            event: change.to.unwrap_or(KeyState::Usable).name(),
            was: change.from.map(KeyState::name),
            reason: reason.map(Reason::name),
            info: if is_last { info_of(record, at) } else { None },
            at: at as f64 / 1e6,
        };
        // After a restart nobody knows what was before, but the table does.
        let when = if change.from.is_none() { When::StateDiffers } else { When::Always };
        publish(&event, when)?;
    }
    Ok(())
}

/// What is known beyond its reason of the present state, which was entered `at`: microseconds since
/// the Unix epoch.
fn info_of(record: &Record, at: i64) -> Option<String> {
    let since = u64::try_from(clock::wall() - at).unwrap_or_default() / 1_000_000;
    report::info_of(&record.last_state()?.error?, record, since)
}

/// What there is to warn of.
pub fn warnings(facts: &KeyFacts) -> Vec<Warning> {
    let soon = clock::wall() / 1_000_000 + EXPIRY_NOTICE * DAY;
    let expires = facts.material_expires_at.is_some_and(|at| at < soon);
    let warnings = [
        facts.deletion_is_scheduled.then_some(Warning::DeletionScheduled),
        expires.then_some(Warning::KeyMaterialExpires),
        (facts.rotates == Some(false)).then_some(Warning::RotationOff),
    ];
    warnings.into_iter().flatten().collect()
}

/// Warns of what will make the key unusable. A warning that was given is not given again. In a
/// transaction. False while somebody locks the table.
pub fn warn(tenant: &str, facts: &KeyFacts) -> bool {
    let now = clock::wall() as f64 / 1e6;
    let at = |at: i64| format!("at={}", report::utc(at));
    for warning in warnings(facts) {
        let info = match warning {
            Warning::DeletionScheduled => facts.deletion_at.map(at),
            Warning::KeyMaterialExpires => facts.material_expires_at.map(at),
            Warning::RotationOff => None,
        };
        let warning = warning.name();
        let (name, database) = (quoted(tenant), report::database());
        let mut line = format!("cmk_encrypt key_warning={warning} tenant={name}");
        if let Some(info) = &info {
            line = line + " " + info;
        }
        let event = Event { tenant, event: warning, was: None, reason: None, info, at: now };
        match publish(&event, When::InfoDiffers) {
            Ok(false) => {}
            Err(error) if error.reason == Reason::TenantBusy => return false,
            // On a standby, which can't remember, each time.
            Ok(true) | Err(_) => elog::log_line(&format!("{line} database={database}")),
        }
    }
    true
}

/// Warns that the data key of a tenant, of this version, is due to be rotated, and KMS makes no
/// other. Once for each reason. In a transaction.
///
/// # Errors
/// As [`publish`].
pub fn rotation_failed(tenant: &str, version: i32, error: &Error) -> Result<()> {
    const EVENT: &str = "rotation_failed";
    let (reason, at) = (error.reason.name(), clock::wall() as f64 / 1e6);
    // What tells it from an earlier one of its kind.
    let info = format!("reason={reason} version={version}");
    let line = format!("cmk_encrypt key_warning={EVENT} {info} tenant={}", quoted(tenant));
    let reason = Some(reason);
    let event = Event { tenant, event: EVENT, was: None, reason, info: Some(info), at };
    if publish(&event, When::InfoDiffers)? {
        let (more, database) = (error.info().unwrap_or_default(), report::database());
        elog::log_line(&format!("{line} {more} database={database}").replace("  ", " "));
    }
    Ok(())
}

/// Writes an event down and notifies. False if there was no need to.
///
/// # Errors
/// `read_only` on a standby; `not_installed`; `tenant_busy` while somebody locks the table.
fn publish(event: &Event<'_>, when: When) -> Result<bool> {
    // Anyone may listen, and anyone may notify: what happened to whom is for those to read who may.
    const PUBLISH: &str = "
        WITH last AS (
            SELECT state.event AS state, state.reason,
                   (SELECT coalesce(info, '') FROM cmk.key_event WHERE tenant = $2 AND event = $3
                     ORDER BY at DESC LIMIT 1) AS info
              FROM (SELECT) one
              LEFT JOIN (SELECT event, reason FROM cmk.key_event
                          WHERE tenant = $2 AND event = ANY ($7)
                          ORDER BY at DESC LIMIT 1) state ON $3 = ANY ($7)),
        published AS (
            INSERT INTO cmk.key_event (at, tenant, event, was, reason, info)
            SELECT pg_catalog.to_timestamp($1), $2, $3, coalesce($4, last.state), $5, $6
              FROM last
             WHERE CASE $8 WHEN 'state' THEN $3 <> coalesce(last.state, 'usable')
                                          OR $3 = 'revoked' AND $5 IS DISTINCT FROM last.reason
                           WHEN 'info' THEN last.info IS NULL OR last.info <> coalesce($6, '')
                           ELSE true END
            RETURNING id)
        SELECT pg_catalog.pg_notify('cmk_key_events',
                   pg_catalog.json_build_object('id', id, 'event', $3)::text)
          FROM published";
    lock::lock_own_table(KEY_EVENT, pg_sys::RowExclusiveLock)?;
    let when = match when {
        When::Always => "",
        When::StateDiffers => "state",
        When::InfoDiffers => "info",
    };
    with_snapshot(|| {
        let arguments = [
            event.at.into(),
            event.tenant.into(),
            event.event.into(),
            event.was.into(),
            event.reason.into(),
            event.info.as_deref().into(),
            KeyState::ALL.map(KeyState::name).to_vec().into(),
            when.into(),
        ];
        Ok(write::execute(PUBLISH, &arguments)? > 0)
    })
}
