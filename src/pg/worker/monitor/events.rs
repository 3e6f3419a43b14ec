//! Makes changes of keys known: a row in `cmk.key_event` and a NOTIFY on `cmk_key_events`, on a primary; and
//! for warnings a line in the log. (A change of state is logged by the process that saw it.)

use super::{transaction, with_snapshot};
use crate::error::{KeyState, Result, quoted};
use crate::keyring::Host;
use crate::kms::KeyFacts;
use crate::pg::backend::Backend;
use crate::pg::{clock, elog, report, shmem, write};
use crate::shared::TenantId;
use crate::shared::record::Record;
use serde::Serialize;
use std::collections::HashMap;

/// Days before imported key material expires from which to warn.
const EXPIRY_NOTICE: i64 = 30;
const DAY: i64 = 86_400;

/// What listeners get, as JSON.
#[derive(Serialize)]
struct Event<'a> {
    tenant: &'a str,
    /// The state entered, or the warning.
    event: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    was: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    info: Option<String>,
}

/// Tells of every state that changed since it was last told.
pub fn announce<'a>(tenants: impl Iterator<Item = &'a String>) {
    if write::in_recovery() {
        return;
    }
    let database = Backend.database();
    let names: HashMap<TenantId, &str> =
        tenants.map(|name| (TenantId::new(database, name), name.as_str())).collect();
    let changed: Vec<Record> = shmem::with(|shared| {
        let ours =
            |record: &&Record| record.changes != record.announced && names.contains_key(&record.id);
        shared.records.iter().filter(ours).copied().collect()
    });
    for record in changed {
        let Some(name) = names.get(&record.id) else { continue };
        if transaction(|| publish(&event_of(name, &record), false)).is_ok() {
            shmem::with(|shared| {
                if let Some((_, current)) = shared.find(&record.id) {
                    current.announced = record.changes;
                }
            });
        }
    }
}

fn event_of<'a>(tenant: &'a str, record: &Record) -> Event<'a> {
    let error = record.seen().and_then(|seen| seen.error);
    let state = error.as_ref().and_then(|error| error.reason.key_state());
    let info = error.as_ref().and_then(|error| error.info()).map(str::to_owned);
    let info = match state {
        None | Some(KeyState::Revoked) => info,
        // An outage: warm tenants go on until their data keys expire.
        Some(_) => {
            let left = record.copies_until.saturating_sub(clock::now()) / 1_000_000_000;
            Some(info.map_or(String::new(), |info| info + " ") + &format!("dark_in_seconds={left}"))
        }
    };
    Event {
        tenant,
        event: state.map_or(KeyState::USABLE, KeyState::name),
        was: record.before(),
        reason: error.map(|error| error.reason.name()),
        info,
    }
}

/// Warns of what will make the key unusable. A warning that was given is not given again. In a transaction.
pub fn warn(tenant: &str, facts: &KeyFacts) {
    let soon = |at: &i64| *at < clock::wall() / 1_000_000 + EXPIRY_NOTICE * DAY;
    let at = |at: i64| format!("at={}", report::utc(at));
    let warnings = [
        facts.deletion_at.map(|date| ("deletion_scheduled", Some(at(date)))),
        facts.material_expires_at.filter(soon).map(|date| ("key_material_expires", Some(at(date)))),
        (facts.rotates == Some(false)).then_some(("rotation_off", None)),
    ];
    for (warning, info) in warnings.into_iter().flatten() {
        let line = format!(
            "cmk_encrypt key_warning={warning} tenant={} {}",
            quoted(tenant),
            info.as_deref().unwrap_or_default()
        );
        let event = Event { tenant, event: warning, was: None, reason: None, info };
        if publish(&event, true).unwrap_or(true) {
            elog::log_line(line.trim_end());
        }
    }
}

/// Writes an event down and notifies. False if `once` and the last one of its kind was the same; an error on
/// a standby, where nothing can be written.
fn publish(event: &Event<'_>, once: bool) -> Result<bool> {
    const INSERT: &str = "
        INSERT INTO cmk.key_event (tenant, event, was, reason, info)
        SELECT $1, $2, $3, $4, $5
         WHERE NOT $6 OR $5 IS DISTINCT FROM coalesce(
               (SELECT coalesce(info, '') FROM cmk.key_event WHERE tenant = $1 AND event = $2
                 ORDER BY at DESC LIMIT 1), 'none')";
    const NOTIFY: &str = "SELECT pg_catalog.pg_notify('cmk_key_events', $1)";
    with_snapshot(|| {
        let info = event.info.as_deref().unwrap_or_default();
        let arguments = [
            event.tenant.into(),
            event.event.into(),
            event.was.into(),
            event.reason.into(),
            info.into(),
            once.into(),
        ];
        if write::execute(INSERT, &arguments)? == 0 {
            return Ok(false);
        }
        let payload = serde_json::to_string(event).unwrap_or_default();
        write::execute(NOTIFY, &[payload.into()])?;
        Ok(true)
    })
}
