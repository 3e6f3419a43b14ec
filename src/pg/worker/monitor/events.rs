//! Makes changes of keys known: a row in `cmk.key_event` and a NOTIFY of its id on `cmk_key_events`, on a primary; and
//! for warnings a line in the log. (A change of state is logged by the process that saw it.)

use super::session::{try_transaction, with_snapshot};
use crate::pg::backend::BACKEND;
use crate::pg::{clock, elog, registry, report, shmem, write};
use cmk_error::{KeyState, Reason, Result, quoted};
use cmk_keyring::Host;
use cmk_keyring::shared::TenantId;
use cmk_keyring::shared::record::{Past, Record};
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

/// When an event is worth a row.
#[derive(Clone, Copy, PartialEq)]
enum Worth {
    Always,
    /// Unless the last row about the tenant's state says the same, and of a revoked key why; without a row the key was
    /// usable.
    IfStateDiffers,
    /// Unless the last row of its kind says the same.
    IfInfoDiffers,
}

/// Tells of every change of state since the last one told. False if an ERROR kept one from being written.
pub fn announce<'a>(tenants: impl Iterator<Item = &'a String>) -> bool {
    if write::in_recovery() {
        return true;
    }
    let database = BACKEND.database();
    let names: HashMap<TenantId, &str> =
        tenants.map(|name| (TenantId::new(database, name), name.as_str())).collect();
    let changed: Vec<Record> = shmem::with(|shared| {
        let ours =
            |record: &&Record| record.changes != record.announced && names.contains_key(&record.id);
        shared.records.iter().filter(ours).copied().collect()
    });
    let mut written = true;
    for record in changed {
        let Some(name) = names.get(&record.id) else { continue };
        match try_transaction(|| publish_changes(name, &record)) {
            Some(Ok(())) => shmem::with(|shared| {
                if let Some((_, current)) = shared.find(&record.id)
                    && current.generation == record.generation
                {
                    current.announced = record.changes;
                }
            }),
            Some(Err(_)) => {}
            None => written = false,
        }
    }
    written
}

fn publish_changes(tenant: &str, record: &Record) -> Result<()> {
    let mut changes = record.unannounced().peekable();
    while let Some(Past { at, change, reason }) = changes.next() {
        let last = changes.peek().is_none();
        let event = Event {
            tenant,
            event: change.to.unwrap_or(KeyState::USABLE),
            was: change.from,
            reason: reason.map(Reason::name),
            info: if last { info_of(record, at) } else { None },
            at: at as f64 / 1e6,
        };
        // After a restart nobody knows what was before, but the table does.
        let worth = if change.from.is_none() { Worth::IfStateDiffers } else { Worth::Always };
        publish(&event, worth)?;
    }
    Ok(())
}

/// What is known beyond its reason of the present state, which was entered `at`: microseconds since the Unix epoch.
fn info_of(record: &Record, at: i64) -> Option<String> {
    let error = record.seen()?.error?;
    let info = error.info().map(str::to_owned);
    if error.reason.key_state() == Some(KeyState::Revoked) {
        return info;
    }
    // An outage: warm tenants go on until their data keys expire.
    let since = u64::try_from(clock::wall() - at).unwrap_or_default() / 1_000_000;
    let left = record.copies_until.saturating_sub(clock::now()) / 1_000_000_000 + since;
    Some(info.map_or(String::new(), |info| info + " ") + &format!("dark_in_seconds={left}"))
}

/// Warns of what will make the key unusable. A warning that was given is not given again. In a transaction. False
/// while somebody locks the table.
pub fn warn(tenant: &str, facts: &KeyFacts) -> bool {
    let now = clock::wall() as f64 / 1e6;
    let soon = |at: &i64| *at < now as i64 + EXPIRY_NOTICE * DAY;
    let at = |at: i64| format!("at={}", report::utc(at));
    let warnings = [
        facts.deletion_at.map(|date| ("deletion_scheduled", Some(at(date)))),
        facts.material_expires_at.filter(soon).map(|date| ("key_material_expires", Some(at(date)))),
        (facts.rotates == Some(false)).then_some(("rotation_off", None)),
    ];
    for (warning, info) in warnings.into_iter().flatten() {
        let (name, database) = (quoted(tenant), report::database());
        let mut line = format!("cmk_encrypt key_warning={warning} tenant={name}");
        if let Some(info) = &info {
            line = line + " " + info;
        }
        let event = Event { tenant, event: warning, was: None, reason: None, info, at: now };
        match publish(&event, Worth::IfInfoDiffers) {
            Ok(false) => {}
            Err(error) if error.reason == Reason::TenantBusy => return false,
            // On a standby, which can't remember, each time.
            Ok(true) | Err(_) => elog::log_line(&format!("{line} database={database}")),
        }
    }
    true
}

/// Writes an event down and notifies. False if it wasn't worth it.
///
/// # Errors
/// `read_only` on a standby; `not_installed`; `tenant_busy` while somebody locks the table.
fn publish(event: &Event<'_>, worth: Worth) -> Result<bool> {
    // Anyone may listen, and anyone may notify: what happened to whom is for those to read who may.
    const PUBLISH: &str = "
        WITH last AS (
            SELECT state.event AS state, state.reason,
                   (SELECT coalesce(info, '') FROM cmk.key_event WHERE tenant = $2 AND event = $3
                     ORDER BY at DESC LIMIT 1) AS info
              FROM (SELECT) one
              LEFT JOIN (SELECT event, reason FROM cmk.key_event WHERE tenant = $2 AND event = ANY ($7)
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
    registry::lock_own_table(registry::KEY_EVENT, pg_sys::RowExclusiveLock)?;
    let worth = match worth {
        Worth::Always => "",
        Worth::IfStateDiffers => "state",
        Worth::IfInfoDiffers => "info",
    };
    with_snapshot(|| {
        let arguments = [
            event.at.into(),
            event.tenant.into(),
            event.event.into(),
            event.was.into(),
            event.reason.into(),
            event.info.as_deref().into(),
            KeyState::NAMES.to_vec().into(),
            worth.into(),
        ];
        Ok(write::execute(PUBLISH, &arguments)? > 0)
    })
}
