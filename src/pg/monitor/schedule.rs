//! The monitor's loop. It watches the keys of one database's tenants: asks KMS on a schedule
//! whether they are usable, so that a revocation is noticed even when nobody queries and data keys
//! in use are renewed before a query has to, and makes known what changes.
//!
//! It is a superuser in a database that others may own, so it trusts none of the database's
//! settings and touches no table that isn't the extension's. Each step is a transaction of its own.
//! If one fails that only reads, the worker ends and the keyring worker starts another; what can't
//! be written is tried again later, and the keys are watched meanwhile.

use super::events;
use super::rotation::Rotation;
use super::session::{Database, connect, transaction, try_transaction};
use super::tenants::{active_tenant, active_tenants};
use crate::pg::background::{handle_signals, sleep};
use crate::pg::process::{THIS_PROCESS, keyring};
use crate::pg::providers::InterruptibleKms;
use crate::pg::registry::{invalidation, read};
use crate::pg::settings::values;
use crate::pg::shared_memory::access;
use crate::pg::{clock, elog, identity, interrupt, report};
use cmk_error::{Instant, KeyState, Reason};
use cmk_keyring::process::Process;
use cmk_keyring::shared::identity::TenantId;
use cmk_keyring::shared::record::Warnings;
use cmk_kms::Kms;
use pgrx::bgworkers::BackgroundWorker;
use pgrx::{pg_guard, pg_sys};
use std::collections::HashMap;
use std::ffi::c_int;
use std::time::Duration;

const TICK: Duration = Duration::from_secs(1);
const SECOND: u64 = 1_000_000_000;
/// How often the list of tenants is read even if nothing says that it changed.
const LIST_EVERY: u64 = 60 * SECOND;
/// The same where the extension isn't installed, which nothing would tell.
const LOOK_EVERY: u64 = 3 * SECOND;
/// How often KMS is asked for what there is to warn of.
const DESCRIBE_EVERY: u64 = 3600 * SECOND;
/// How long to write nothing after that failed, at first and at most.
const WRITE_PAUSE: u64 = 10 * SECOND;
const WRITE_PAUSE_MAX: u64 = 300 * SECOND;

/// When to do what about a tenant.
struct Schedule {
    /// The tenant's name in shared memory.
    id: TenantId,
    checked_at: u64,
    /// Share of an interval by which the checks of tenants are kept apart.
    spread: f64,
    is_new: bool,
    /// When to give a warning that could not be written; `u64::MAX`: there is none.
    again_at: u64,
    /// When to ask KMS again what there is to warn of.
    describe_at: u64,
    /// Changes of the key's state when KMS was last asked for what there is to warn of.
    changes: u64,
}

#[derive(Default)]
struct Monitor {
    tenants: HashMap<String, Schedule>,
    rotation: Rotation,
    list_at: u64,
    /// The registry's generation when the list was read.
    generation: u64,
    /// Whether the extension is there; its absence was logged.
    is_installed: Option<bool>,
    /// When events may be written.
    write_at: u64,
    write_pause: u64,
    /// When the budget allows the next KMS call.
    call_at: u64,
}

#[pg_guard]
#[unsafe(no_mangle)]
pub extern "C-unwind" fn cmk_encrypt_monitor_main(argument: pg_sys::Datum) {
    handle_signals();
    connect(Database::Named(BackgroundWorker::get_extra()));
    // SAFETY: on the main thread; the callback takes no argument.
    unsafe { pg_sys::before_shmem_exit(Some(stop), pg_sys::Datum::from(0_usize)) };
    let mut monitor = Monitor::default();
    interrupt::give_way();
    // A keyring worker that was started again has a monitor of its own for the database. One that
    // gave way is started again too, and waits until the database is free.
    while access::is_worker(argument.value() as i32) && !transaction(interrupt::has_to_go) {
        let next = monitor.round();
        seen(clock::now());
        sleep(Duration::from_nanos(next.saturating_sub(clock::now())).min(TICK));
    }
}

#[pg_guard]
extern "C-unwind" fn stop(_code: c_int, _argument: pg_sys::Datum) {
    seen(0);
}

/// Tells that this database is watched; at 0, that it isn't any more.
fn seen(at: Instant) {
    access::counters().monitor_seen(identity::database(), at);
}

impl Schedule {
    /// Within an interval at first, then 90 to 100 % of one after the last check.
    fn check_at(&self, interval: u64) -> u64 {
        let share = if self.is_new { self.spread } else { 0.9 + self.spread / 10.0 };
        self.again_at.min(self.checked_at + (interval as f64 * share) as u64)
    }
}

impl Monitor {
    /// Returns when something is due again.
    fn round(&mut self) -> u64 {
        let generation = transaction(invalidation::generation);
        if generation != self.generation || clock::now() >= self.list_at {
            self.generation = generation;
            self.list();
        }
        let next = self.check_due();
        self.announce();
        self.rotate_due(next)
    }

    /// Rotates data keys whose time has come, as far as the budget goes.
    fn rotate_due(&mut self, next: u64) -> u64 {
        let names = || self.tenants.iter().map(|(name, of)| (of.id, name.as_str()));
        self.rotation.look(names);
        while clock::now() >= self.call_at
            && let Some(name) = self.rotation.next()
        {
            let Some(schedule) = self.tenants.get(&name) else { continue };
            if !is_usable(&schedule.id) {
                continue;
            }
            let Some(tenant) = transaction(|| active_tenant(&name)) else { continue };
            let calls = self.rotation.rotate(&tenant);
            self.spend(calls);
        }
        let again = if self.rotation.is_waiting() { self.call_at } else { u64::MAX };
        next.min(again)
    }

    /// Has the budget wait for so many KMS calls.
    fn spend(&mut self, calls: u64) {
        let cost = 60 * SECOND / u64::from(values::monitor_budget());
        self.call_at = self.call_at.max(clock::now().saturating_sub(SECOND)) + calls * cost;
    }

    fn announce(&mut self) {
        self.write(|monitor| {
            let names = || monitor.tenants.iter().map(|(name, of)| (of.id, name.as_str()));
            events::announce(names)
        });
    }

    /// Writes, unless that failed lately. False if nothing was written.
    fn write(&mut self, work: impl FnOnce(&Self) -> bool) -> bool {
        if clock::now() < self.write_at {
            return false;
        }
        let written = work(self);
        self.write_pause = match written {
            true => 0,
            false => (self.write_pause * 2).clamp(WRITE_PAUSE, WRITE_PAUSE_MAX),
        };
        self.write_at = clock::now() + self.write_pause;
        written
    }

    /// Takes in which tenants there are. None where the extension is not installed.
    fn list(&mut self) {
        let (names, database) = transaction(|| (active_tenants(), report::database()));
        let now = clock::now();
        self.list_at = now + if names.is_ok() { LIST_EVERY } else { LOOK_EVERY };
        let (is_installed, what) = match &names {
            Err(error) if error.reason == Reason::NotInstalled => (false, "no extension"),
            Err(error) if error.reason == Reason::RegistryCopied => {
                (false, "a copied registry, which cmk.adopt_registry() would adopt,")
            }
            Err(_) => return,
            Ok(_) => (true, ""),
        };
        if !is_installed && self.is_installed != Some(false) {
            elog::log_line(&format!("cmk_encrypt monitor: {what} in database={database}"));
        }
        self.is_installed = Some(is_installed);
        let names = names.unwrap_or_default();
        self.tenants.retain(|name, _| names.contains(name));
        for name in names {
            let spread = f64::from(getrandom::u32().unwrap_or(0)) / f64::from(u32::MAX);
            let id = read::tenant_id(&name);
            let new = || Schedule {
                id,
                checked_at: now,
                spread,
                is_new: true,
                again_at: u64::MAX,
                describe_at: 0,
                changes: 0,
            };
            self.tenants.entry(name).or_insert_with(new);
        }
    }

    /// Checks those whose time has come, the most overdue first, as far as the budget goes.
    fn check_due(&mut self) -> u64 {
        let interval = values::monitor_interval();
        let renewals = renewals();
        let check_at = |schedule: &Schedule| {
            let check_at = schedule.check_at(interval);
            renewals.get(&schedule.id).map_or(check_at, |renew_at| check_at.min(*renew_at))
        };
        let now = clock::now();
        let times = self.tenants.iter().map(|(name, schedule)| (check_at(schedule), name));
        let (mut due, later): (Vec<_>, Vec<_>) = times.partition(|(at, _)| *at <= now);
        let next = later.into_iter().map(|(at, _)| at).min().unwrap_or(u64::MAX);
        due.sort_unstable();
        let due: Vec<_> = due.into_iter().map(|(_, name)| name.clone()).collect();
        for name in due {
            let now = clock::now();
            if now < self.call_at {
                return self.call_at.min(next);
            }
            seen(now);
            let calls = self.check(&name);
            self.spend(calls);
        }
        next
    }

    /// Returns how many calls it made.
    fn check(&mut self, name: &str) -> u64 {
        // Where the tables are locked, in the next round; if the tenant is gone the next list will
        // tell.
        let Some(tenant) = transaction(|| active_tenant(name)) else { return 0 };
        let Some(schedule) = self.tenants.get_mut(name) else { return 0 };
        let now = clock::now();
        (schedule.checked_at, schedule.is_new, schedule.again_at) = (now, false, u64::MAX);
        let asked = transaction(|| keyring().check_tenant(&THIS_PROCESS, &tenant));
        let (changes, answers) = last_seen(&schedule.id);
        let changed = changes != schedule.changes;
        // While KMS gives no answer there is nothing to ask it about.
        if !answers || !(changed || now >= schedule.describe_at) {
            return asked.into();
        }
        schedule.changes = changes;
        schedule.describe_at = now + DESCRIBE_EVERY;
        // Announce changes before warnings.
        self.announce();
        let described =
            transaction(|| InterruptibleKms { limit: None }.describe(&tenant.customer_key));
        // An outage says nothing of what the owner shows.
        let warnings = match &described {
            Ok(facts) if facts.are_withheld() => Some(Warnings::HIDDEN),
            Ok(facts) => Some(Warnings::seen(events::warnings(facts))),
            Err(error) if error.reason.key_state() == Some(KeyState::Revoked) => {
                Some(Warnings::HIDDEN)
            }
            Err(_) => None,
        };
        if let Some(warnings) = warnings {
            let subject = THIS_PROCESS.subject(&tenant);
            access::with(|shared| shared.put_warnings(&subject, warnings));
        }
        if let Ok(facts) = described
            && !self.write(|_| try_transaction(|| events::warn(name, &facts)) == Some(true))
            && let Some(schedule) = self.tenants.get_mut(name)
        {
            (schedule.describe_at, schedule.again_at) = (self.write_at, self.write_at);
        }
        u64::from(asked) + 2
    }
}

/// How often a key's state changed, and whether KMS answered last time, be it by a refusal.
fn last_seen(id: &TenantId) -> (u64, bool) {
    let record = access::read(|shared| shared.find(id).map(|(_, record)| *record));
    let state = record.and_then(|record| Some(record.last_state()?.key_state()));
    let answers = matches!(state, None | Some(KeyState::Usable | KeyState::Revoked));
    (record.map_or(0, |record| record.history.changes), answers)
}

/// Whether nothing is known against a key.
fn is_usable(id: &TenantId) -> bool {
    let record = access::read(|shared| shared.find(id).map(|(_, record)| *record));
    let state = record.and_then(|record| Some(record.last_state()?.key_state()));
    matches!(state, None | Some(KeyState::Usable))
}

/// When to renew the shared data keys of each tenant that uses them: before a query finds them
/// older than the soft TTL.
fn renewals() -> HashMap<TenantId, Instant> {
    let soft_ttl = values::policy().soft_ttl;
    let mut renewals = HashMap::new();
    access::in_chunks(|range| {
        let in_use = access::read(|shared| shared.in_use(range.clone()));
        renewals.extend(in_use.into_iter().map(|(id, at)| (id, at + soft_ttl / 5 * 4)));
    });
    renewals
}
