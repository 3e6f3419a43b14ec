//! When data keys are rotated without being asked: the monitor writes down what sessions sealed,
//! looks whose data key is too old or sealed too much, and has KMS make another. Nobody waits for
//! it, and it waits for nobody: KMS is asked with nothing locked, and a tenant whose row somebody
//! holds is left for later.

use super::events;
use super::session::{transaction, try_transaction};
use crate::pg::latest::with_snapshot;
use crate::pg::registry::tables::{AUDIT_CHAIN, AUDIT_EVENT, DATA_KEY, DATA_KEY_USE, TENANT};
use crate::pg::registry::{lock, write};
use crate::pg::settings::values;
use crate::pg::shared_memory::access;
use crate::pg::{clock, elog, identity, kms_trail, report};
use cmk_error::{Result, quoted};
use cmk_keyring::shared::identity::TenantId;
use cmk_keyring::shared::limits::CHUNK;
use cmk_keyring::shared::uses::Sealed;
use cmk_keyring::tenant::Tenant;
use cmk_keyring::unwrap::WrappedDataKey;
use once_cell::sync::OnceCell;
use pgrx::pg_sys;
use std::collections::{HashMap, VecDeque};

const SECOND: u64 = 1_000_000_000;
/// How often to look, unless keys are checked more often.
const LOOK_EVERY: u64 = 60 * SECOND;
/// How long to leave a tenant alone that could not be rotated, at first and at most.
const PAUSE: u64 = 60 * SECOND;
const PAUSE_MAX: u64 = 3600 * SECOND;

/// What rotation is made of. It is an administrator's act, and so belongs to those above.
pub struct Rotate {
    /// Adds to what data keys have sealed.
    pub count: fn(&Uses) -> Result<()>,
    /// The tenants whose data key is to be rotated.
    pub due: fn() -> Result<Vec<String>>,
    /// Asks KMS for a data key.
    pub make: fn(&Tenant) -> Result<WrappedDataKey>,
    /// Stores it, and returns its version.
    pub put: fn(&Tenant, &WrappedDataKey) -> Result<i32>,
}

/// Values sealed under data keys, one in each place.
#[derive(Clone, Default)]
pub struct Uses {
    pub tenants: Vec<String>,
    pub versions: Vec<i32>,
    pub sealed: Vec<i64>,
}

static ROTATE: OnceCell<Rotate> = OnceCell::new();

/// Once per process, or in the postmaster for all its children.
pub fn install(rotate: Rotate) {
    drop(ROTATE.set(rotate));
}

/// Whose data key is due, and who is left alone for a while.
#[derive(Default)]
pub struct Rotation {
    look_at: u64,
    due: VecDeque<String>,
    pauses: HashMap<String, Pause>,
}

struct Pause {
    until: u64,
    length: u64,
}

impl Rotation {
    /// Looks whose data key is due, if it is time to. On a standby there is nothing to do.
    pub fn look<'a, N: Iterator<Item = (TenantId, &'a str)>>(&mut self, tenants: impl Fn() -> N) {
        let now = clock::now();
        let Some(rotate) = ROTATE.get() else { return };
        if now < self.look_at || write::in_recovery() {
            return;
        }
        self.look_at = now + look_every();
        count(rotate, tenants());
        let look = || {
            lock_tables(&[DATA_KEY_USE, TENANT.name, DATA_KEY.name], pg_sys::AccessShareLock)?;
            with_snapshot(rotate.due)
        };
        let due = try_transaction(look).and_then(Result::ok).unwrap_or_default();
        self.pauses.retain(|name, _| due.contains(name));
        let waits = |name: &String| self.pauses.get(name).is_some_and(|pause| now < pause.until);
        self.due = due.into_iter().filter(|name| !waits(name)).collect();
    }

    /// The next whose time has come.
    pub fn next(&mut self) -> Option<String> {
        self.due.pop_front()
    }

    /// True if there are more.
    pub fn is_waiting(&self) -> bool {
        !self.due.is_empty()
    }

    /// Makes a new data key for a tenant. Returns how many calls that took.
    pub fn rotate(&mut self, tenant: &Tenant) -> u64 {
        let Some(rotate) = ROTATE.get() else { return 0 };
        let name = &*tenant.name;
        kms_trail::begin_act();
        match transaction(|| (rotate.make)(tenant)) {
            Ok(made) => {
                let put = || {
                    // Those of the event, too, which is written as the commit begins.
                    let tables = [TENANT.name, DATA_KEY.name, AUDIT_CHAIN, AUDIT_EVENT];
                    lock_tables(&tables, pg_sys::RowExclusiveLock)?;
                    with_snapshot(|| (rotate.put)(tenant, &made))
                };
                match try_transaction(put) {
                    Some(Ok(version)) => {
                        self.pauses.remove(name);
                        log(name, &format!("rotated version={version}"));
                    }
                    // Somebody is changing the tenant.
                    Some(Err(_)) => self.pause(name, PAUSE),
                    // Something else than KMS failed, such as a disk, and may fail for the others,
                    // too: the next look comes soon enough.
                    None => {
                        self.pause(name, look_every());
                        self.due.clear();
                    }
                }
            }
            Err(error) => {
                self.pause(name, PAUSE);
                let version = tenant.current_data_key().map_or(0, |key| key.version);
                drop(try_transaction(|| events::rotation_failed(name, version, &error)));
            }
        }
        kms_trail::end_act();
        2
    }

    fn pause(&mut self, name: &str, first: u64) {
        let pause = self.pauses.entry(name.to_owned()).or_insert(Pause { until: 0, length: 0 });
        pause.length = (pause.length * 2).clamp(first, PAUSE_MAX);
        pause.until = clock::now() + pause.length;
    }
}

fn look_every() -> u64 {
    LOOK_EVERY.min(values::monitor_interval())
}

/// Writes down what was sealed since the last time; if that fails, the next time.
fn count<'a>(rotate: &Rotate, tenants: impl Iterator<Item = (TenantId, &'a str)>) {
    let mut taken = Vec::new();
    access::in_chunks(|range| {
        let database = identity::database();
        taken.extend(access::with(|shared| shared.take_sealed(range.clone(), database)));
    });
    if taken.is_empty() {
        return;
    }
    let names: HashMap<TenantId, &str> = tenants.collect();
    // A tenant that is newer than the list, or suspended, waits.
    let (known, unknown): (Vec<_>, Vec<_>) =
        taken.into_iter().partition(|(id, _)| names.contains_key(id));
    give_back(&unknown);
    let mut uses = Uses::default();
    for (id, sealed) in &known {
        uses.tenants.extend(names.get(id).map(|name| (*name).to_owned()));
        uses.versions.push(sealed.version);
        uses.sealed.push(i64::try_from(sealed.values).unwrap_or(i64::MAX));
    }
    let write = || {
        lock_tables(&[DATA_KEY_USE], pg_sys::RowExclusiveLock)?;
        with_snapshot(|| (rotate.count)(&uses))
    };
    if !known.is_empty() && !matches!(try_transaction(write), Some(Ok(()))) {
        give_back(&known);
    }
}

fn give_back(taken: &[(TenantId, Sealed)]) {
    for part in taken.chunks(CHUNK) {
        access::with(|shared| {
            part.iter().for_each(|(id, sealed)| shared.give_back_sealed(id, *sealed));
        });
    }
}

fn lock_tables(tables: &[&std::ffi::CStr], mode: u32) -> Result<()> {
    tables.iter().try_for_each(|table| lock::lock_own_table(table, mode))
}

fn log(tenant: &str, what: &str) {
    let (tenant, database) = (quoted(tenant), transaction(report::database));
    elog::log_line(&format!("cmk_encrypt data_key={what} tenant={tenant} database={database}"));
}
