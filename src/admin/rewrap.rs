//! Moves a tenant to another customer managed key: its data keys stay, what wraps them changes.
//!
//! [`begin`] wraps every data key for the other key and proves each new wrapping before it is kept
//! beside the one in force. [`confirm`] puts them into force, all at once. Until then nothing that
//! a session uses has changed, so that a move can stop half-way at any time and go on later.

use super::audit::{Act, record};
use super::tenant::{lock, new_epoch, options_of};
use crate::pg::guard::permitted;
use crate::pg::process::{THIS_PROCESS, keyring};
use crate::pg::registry::write;
use cmk_error::{Error, Reason, Result, quoted};
use cmk_keyring::rewrap::Move;
use cmk_keyring::tenant::{DataKey, Tenant, TenantState};
use cmk_kms::CustomerKey;
use pgrx::spi::Spi;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// How far a move is.
pub struct Progress {
    /// How many data keys there are to move, destroyed ones left out.
    pub data_keys: usize,
    /// How many of them have a proven wrapping under the new key.
    pub rewrapped: usize,
    /// Why not all have one.
    pub problem: Option<Error>,
}

/// Begins a move, or goes on with it. A tenant without data keys has nothing to move: it has the
/// new key at once.
///
/// What was proven before a failure is kept, and the failure reported beside it. Where nothing was,
/// the failure is the error, and all is as before.
///
/// # Errors
/// `key_uri` and what else the new key's provider refuses its options with; as
/// [`lock`]; `rewrap_target` if it is the tenant's key already;
/// `rewrap_pending` while a move to another key is under way; what either key's KMS refuses with.
pub fn begin(tenant: &str, key_uri: &str, options: &str) -> Result<Progress> {
    let named = |error: Error| error.for_tenant(tenant);
    let locked = lock(tenant, None)?;
    let epoch = new_epoch()?;
    let to = CustomerKey::parse(key_uri, options, epoch).map_err(named)?;
    if to == locked.customer_key {
        return Err(named(Reason::RewrapTarget.into()));
    }
    let pending = Pending::of(&locked)?;
    if let Some(pending) = pending.as_ref().filter(|pending| pending.key != to) {
        let info = format!("next_key_uri={}", quoted(pending.key.uri()));
        return Err(named(Error::new(Reason::RewrapPending).with_info(info)));
    }
    if locked.state == TenantState::Pending {
        replace_key(&locked, &to, epoch)?;
        let (before, after) = (in_force(&locked.customer_key), in_force(&to));
        record_move("rewrap_tenant", tenant, before, Some(after));
        return Ok(Progress { data_keys: 0, rewrapped: 0, problem: None });
    }
    let mut proven = pending.as_ref().map(Pending::versions).unwrap_or_default();
    let (mut problem, mut new) = (None, Vec::new());
    let mut way = Move::to(&to);
    for data_key in to_move(&locked).filter(|data_key| !proven.contains(&data_key.version)) {
        match keyring().rewrap(&THIS_PROCESS, &locked, data_key, &mut way) {
            Ok(wrapped) => new.push((data_key.version, wrapped)),
            Err(error) => {
                // What concerns this data key alone says nothing about the others.
                let goes_on = is_of_one_data_key(error.reason);
                problem.get_or_insert(named(error));
                if !goes_on {
                    break;
                }
            }
        }
    }
    if let Some(problem) = problem.take_if(|_| new.is_empty()) {
        return Err(problem);
    }
    if pending.is_none() {
        const TARGET: &str = "
            UPDATE cmk.tenant
               SET next_key_uri = $2, next_options = $3::pg_catalog.text::pg_catalog.jsonb
             WHERE tenant OPERATOR(pg_catalog.=) $1";
        let arguments = [tenant.into(), to.uri().into(), to.options().into()];
        permitted(|| write::one(TARGET, &arguments))?;
    }
    for (version, wrapped) in &new {
        const KEEP: &str = "
            UPDATE cmk.data_key SET next_wrapped = $3, next_wrapped_by = $4
             WHERE tenant OPERATOR(pg_catalog.=) $1 AND version OPERATOR(pg_catalog.=) $2";
        let wrapped = wrapped.as_slice().into();
        let arguments = [tenant.into(), (*version).into(), wrapped, to.uri().into()];
        permitted(|| write::one(KEEP, &arguments))?;
    }
    let is_changed = pending.is_none() || !new.is_empty();
    proven.extend(new.iter().map(|(version, _)| *version));
    let progress =
        Progress { data_keys: to_move(&locked).count(), rewrapped: proven.len(), problem };
    if is_changed {
        let problem = progress.problem.as_ref().map(|error| error.reason.name());
        let mut after = planned(&to);
        after["rewrapped"] = progress.rewrapped.into();
        after["remaining"] = (progress.data_keys.saturating_sub(progress.rewrapped)).into();
        after["problem"] = problem.into();
        record_move("rewrap_tenant", tenant, in_force(&locked.customer_key), Some(after));
    }
    Ok(progress)
}

/// Puts the new wrappings into force, after each was proven once more. From commit on every session
/// asks the new key. Returns how many data keys that were.
///
/// # Errors
/// As [`lock`]; `no_rewrap`; `rewrap_incomplete` while a data key lacks its
/// new wrapping, as one that was made meanwhile does; what the new key's KMS refuses with, and then
/// all is as before.
pub fn confirm(tenant: &str) -> Result<usize> {
    let named = |error: Error| error.for_tenant(tenant);
    let locked = lock(tenant, None)?;
    let pending = Pending::of(&locked)?.ok_or_else(|| named(Reason::NoRewrap.into()))?;
    let remaining = to_move(&locked).filter(|key| !pending.wrapped.contains_key(&key.version));
    let remaining = remaining.count();
    if remaining > 0 {
        let info = format!("remaining={remaining}");
        return Err(named(Error::new(Reason::RewrapIncomplete).with_info(info)));
    }
    for data_key in to_move(&locked) {
        let wrapped = &pending.wrapped[&data_key.version];
        let proven = keyring().confirm(&THIS_PROCESS, &locked, data_key, wrapped, &pending.key);
        proven.map_err(named)?;
    }
    const SWAP: &str = "
        UPDATE cmk.data_key
           SET wrapped = next_wrapped, wrapped_by = next_wrapped_by,
               next_wrapped = NULL, next_wrapped_by = NULL
         WHERE tenant OPERATOR(pg_catalog.=) $1 AND next_wrapped_by OPERATOR(pg_catalog.=) $2";
    let arguments = [tenant.into(), pending.key.uri().into()];
    let swapped = permitted(|| write::execute(SWAP, &arguments))?;
    if swapped != pending.wrapped.len() {
        return Err(named(Reason::RegistryWrite.into()));
    }
    replace_key(&locked, &pending.key, pending.epoch)?;
    let mut after = in_force(&pending.key);
    after["rewrapped"] = swapped.into();
    record_move("confirm_rewrap", tenant, in_force(&locked.customer_key), Some(after));
    Ok(swapped)
}

/// Forgets the new wrappings. False if there was no move under way.
///
/// # Errors
/// As [`lock`].
pub fn cancel(tenant: &str) -> Result<bool> {
    let locked = lock(tenant, None)?;
    let Some(pending) = Pending::of(&locked)? else { return Ok(false) };
    const FORGET: &str = "
        UPDATE cmk.data_key SET next_wrapped = NULL, next_wrapped_by = NULL
         WHERE tenant OPERATOR(pg_catalog.=) $1 AND next_wrapped IS NOT NULL";
    permitted(|| write::execute(FORGET, &[tenant.into()]))?;
    const TARGET: &str = "
        UPDATE cmk.tenant SET next_key_uri = NULL, next_options = NULL
         WHERE tenant OPERATOR(pg_catalog.=) $1";
    permitted(|| write::one(TARGET, &[tenant.into()]))?;
    record_move("cancel_rewrap", tenant, planned(&pending.key), None);
    Ok(true)
}

/// An event about which key wraps the tenant's data keys.
fn record_move(act: &'static str, tenant: &str, before: Value, after: Option<Value>) {
    record(&Act { act, tenant: Some(tenant), data_key: None, before: Some(before), after });
}

fn in_force(key: &CustomerKey) -> Value {
    json!({ "key_uri": key.uri(), "options": options_of(key) })
}

fn planned(key: &CustomerKey) -> Value {
    json!({ "next_key_uri": key.uri(), "next_options": options_of(key) })
}

/// The tenant's data keys that are wrapped at all, in the order of their versions.
fn to_move(tenant: &Tenant) -> impl Iterator<Item = &DataKey> {
    let mut keys: Vec<_> = tenant.data_keys.iter().filter(|key| key.wrapped.is_some()).collect();
    keys.sort_unstable_by_key(|key| key.version);
    keys.into_iter()
}

/// Whether a failure says something about one data key, and nothing about the keys and services
/// that are asked.
fn is_of_one_data_key(reason: Reason) -> bool {
    matches!(reason, Reason::WrappedKeyRejected | Reason::CommitmentMismatch)
}

/// From commit on the tenant has this key, which was parsed with this epoch, in every session.
fn replace_key(tenant: &Tenant, key: &CustomerKey, epoch: i64) -> Result<()> {
    const REPLACE: &str = "
        UPDATE cmk.tenant
           SET key_uri = $2, options = $3::pg_catalog.text::pg_catalog.jsonb, epoch = $4,
               next_key_uri = NULL, next_options = NULL, changed_at = pg_catalog.now()
         WHERE tenant OPERATOR(pg_catalog.=) $1";
    let (name, uri, options) = (&*tenant.name, key.uri(), key.options());
    let arguments = [name.into(), uri.into(), options.into(), epoch.into()];
    permitted(|| write::one(REPLACE, &arguments))
}

/// A move that is under way.
struct Pending {
    key: CustomerKey,
    /// Drawn for `key`, so that a role is assumed anew.
    epoch: i64,
    /// By version. Only what the key that is moved to wrapped.
    wrapped: BTreeMap<i32, Vec<u8>>,
}

impl Pending {
    /// # Errors
    /// `registry_unusable`; `key_uri` and the like if the row was altered into nonsense.
    fn of(tenant: &Tenant) -> Result<Option<Self>> {
        const TARGET: &str = "
            SELECT next_key_uri, next_options::pg_catalog.text FROM cmk.tenant
             WHERE tenant OPERATOR(pg_catalog.=) $1 AND next_key_uri IS NOT NULL";
        const WRAPPED: &str = "
            SELECT version, next_wrapped FROM cmk.data_key
             WHERE tenant OPERATOR(pg_catalog.=) $1 AND next_wrapped_by OPERATOR(pg_catalog.=) $2";
        let name = &*tenant.name;
        let found = Spi::connect_mut(|client| -> pgrx::spi::Result<_> {
            let mut rows = client.update(TARGET, Some(1), &[name.into()])?;
            let Some(row) = rows.next() else { return Ok(None) };
            let (uri, options) = (row.get::<String>(1)?, row.get::<String>(2)?);
            let (uri, options) = (uri.unwrap_or_default(), options.unwrap_or_default());
            let mut wrapped = BTreeMap::new();
            for row in client.update(WRAPPED, None, &[name.into(), uri.as_str().into()])? {
                if let (Some(version), Some(bytes)) = (row.get(1)?, row.get(2)?) {
                    wrapped.insert(version, bytes);
                }
            }
            Ok(Some((uri, options, wrapped)))
        });
        let Some((uri, options, wrapped)) = found.map_err(|_| Reason::RegistryUnusable)? else {
            return Ok(None);
        };
        let epoch = new_epoch()?;
        let key = CustomerKey::parse(&uri, &options, epoch);
        Ok(Some(Self { key: key.map_err(|error| error.for_tenant(name))?, epoch, wrapped }))
    }

    fn versions(&self) -> Vec<i32> {
        self.wrapped.keys().copied().collect()
    }
}
