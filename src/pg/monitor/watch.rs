//! The monitor's loop. It watches the keys of one database's tenants: asks KMS on a schedule
//! whether they are usable, so that a revocation is noticed even when nobody queries and data keys
//! in use are renewed before a query has to, and makes known what changes. It asks about many keys
//! side by side.
//!
//! It is a superuser in a database that others may own, so it trusts none of the database's
//! settings and touches no table that isn't the extension's. Each step is a transaction of its own.
//! If one fails that only reads, the worker ends and the keyring worker starts another; what can't
//! be written is tried again later, and the keys are watched meanwhile.

mod checking;

use super::checks::Checks;
use super::events;
use super::rotation::Rotation;
use super::schedule::Schedule;
use super::session::{Database, connect, transaction};
use super::tenants::{active_tenant, active_tenants};
use crate::pg::background::{handle_signals, sleep};
use crate::pg::registry::{invalidation, read};
use crate::pg::settings::values;
use crate::pg::shared_memory::access;
use crate::pg::{clock, elog, identity, interrupt, report};
use cmk_error::{Instant, KeyState, Reason};
use cmk_keyring::shared::identity::TenantId;
use cmk_keyring::tenant::Tenant;
use pgrx::bgworkers::BackgroundWorker;
use pgrx::{pg_guard, pg_sys};
use std::collections::{HashMap, VecDeque};
use std::ffi::c_int;
use std::time::Duration;

const TICK: Duration = Duration::from_secs(1);
const SECOND: u64 = 1_000_000_000;
/// Longest to rotate data keys while checks wait, and the pause after that.
const ROTATE: u64 = SECOND;
/// How often the list of tenants is read even if nothing says that it changed.
const LIST_EVERY: u64 = 60 * SECOND;
/// The same where the extension isn't installed, which nothing would tell.
const LOOK_EVERY: u64 = 3 * SECOND;
/// How long to write nothing after that failed, at first and at most.
const WRITE_PAUSE: u64 = 10 * SECOND;
const WRITE_PAUSE_MAX: u64 = 300 * SECOND;

struct Monitor {
    tenants: HashMap<String, Schedule>,
    rotation: Rotation,
    checks: Checks,
    /// Whose check is due, the most overdue first.
    due: VecDeque<String>,
    /// When to look again whose is.
    look_at: u64,
    /// Of whose keys to ask KMS what there is to warn of.
    to_describe: VecDeque<Tenant>,
    /// Something ended, or a second is over: there may be changes to announce.
    is_news: bool,
    /// No check begins: data keys are to be rotated when those under way are over.
    is_draining: bool,
    /// When to rotate again.
    rotate_at: u64,
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
    /// The log says that the budget is too small.
    is_late: bool,
}

#[pg_guard]
#[unsafe(no_mangle)]
pub extern "C-unwind" fn cmk_encrypt_monitor_main(argument: pg_sys::Datum) {
    handle_signals();
    connect(Database::Named(BackgroundWorker::get_extra()));
    // SAFETY: on the main thread; the callback takes no argument.
    unsafe { pg_sys::before_shmem_exit(Some(stop), pg_sys::Datum::from(0_usize)) };
    let mut monitor = Monitor::new();
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

impl Monitor {
    fn new() -> Self {
        Self {
            tenants: HashMap::new(),
            rotation: Rotation::default(),
            checks: Checks::new(),
            due: VecDeque::new(),
            look_at: 0,
            to_describe: VecDeque::new(),
            is_news: true,
            is_draining: false,
            rotate_at: 0,
            list_at: 0,
            generation: 0,
            is_installed: None,
            write_at: 0,
            write_pause: 0,
            call_at: 0,
            is_late: false,
        }
    }

    /// Returns when something is due again.
    fn round(&mut self) -> u64 {
        let generation = transaction(invalidation::generation);
        if generation != self.generation || clock::now() >= self.list_at {
            self.generation = generation;
            self.list();
        }
        if clock::now() >= self.look_at {
            self.find_due();
        }
        self.ask_and_listen();
        // Announce changes before warnings.
        if std::mem::take(&mut self.is_news) {
            self.announce();
        }
        self.describe();
        let next = self.rotate_due();
        match (self.checks.is_empty(), self.due.is_empty()) {
            (false, _) => 0,
            (true, false) => next.min(self.call_at),
            (true, true) => next.min(self.look_at),
        }
    }

    /// Rotates data keys whose time has come, as far as the budget goes. Returns when to go on.
    ///
    /// A rotation waits for KMS by itself, and what else is under way would wait with it: calls
    /// would run out of time, and might hold the credentials that it needs.
    fn rotate_due(&mut self) -> u64 {
        let names = || self.tenants.iter().map(|(name, of)| (of.id, name.as_str()));
        self.rotation.look(names);
        let (now, go_on_at) = (clock::now(), self.call_at.max(self.rotate_at));
        self.is_draining = self.rotation.is_waiting() && now >= go_on_at;
        if !self.rotation.is_waiting() {
            return u64::MAX;
        }
        if !self.is_draining || !self.checks.is_empty() {
            return go_on_at;
        }
        while clock::now() >= self.call_at
            && clock::now() < now + ROTATE
            && let Some(name) = self.rotation.next()
        {
            seen(clock::now());
            let Some(schedule) = self.tenants.get(&name) else { continue };
            // Something is known against it.
            if !matches!(last_seen(&schedule.id).1, None | Some(KeyState::Usable)) {
                continue;
            }
            let Some(tenant) = transaction(|| active_tenant(&name)) else { continue };
            let calls = self.rotation.rotate(&tenant);
            self.spend(calls);
        }
        self.is_draining = false;
        self.rotate_at = clock::now() + ROTATE;
        if self.rotation.is_waiting() { self.call_at.max(self.rotate_at) } else { u64::MAX }
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
            let id = read::tenant_id(&name);
            self.tenants.entry(name).or_insert_with(|| Schedule::new(id, now));
        }
        self.look_at = 0;
    }
}

/// How often a key's state changed, and which it is; `None` if nothing is known of it.
fn last_seen(id: &TenantId) -> (u64, Option<KeyState>) {
    let record = access::read(|shared| shared.find(id).map(|(_, record)| *record));
    let state = record.and_then(|record| Some(record.last_state()?.key_state()));
    (record.map_or(0, |record| record.history.changes), state)
}
