//! Watches the keys of one database's tenants: asks KMS on a schedule whether they are usable, so that a
//! revocation is noticed even when nobody queries and data keys in use are renewed before a query has to,
//! and makes known what changes.
//!
//! Each step is a transaction of its own. If one fails the worker ends, and the sweeper starts another.

mod events;

use super::sleep;
use crate::keyring::Host;
use crate::kms::Kms;
use crate::pg::backend::{Backend, keyring};
use crate::pg::{clock, invalidation, registry, settings, shmem};
use crate::registry::TenantState;
use crate::shared::record::jittered;
use crate::shared::{TenantId, vault};
use pgrx::bgworkers::BackgroundWorker;
use pgrx::{Spi, pg_guard, pg_sys};
use std::collections::HashMap;
use std::time::Duration;

const TICK: Duration = Duration::from_secs(1);
const SECOND: u64 = 1_000_000_000;
/// How often the list of tenants is read even if nothing says that it changed.
const LIST_EVERY: u64 = 60 * SECOND;
/// The same where the extension isn't installed, which nothing would tell.
const LOOK_EVERY: u64 = 3 * SECOND;
/// How often KMS is asked for what there is to warn of.
const DESCRIBE_EVERY: u64 = 3600 * SECOND;

/// When to do what about a tenant.
#[derive(Default)]
struct Schedule {
    check_at: u64,
    describe_at: u64,
    /// The last check found the key usable.
    usable: bool,
}

#[derive(Default)]
struct Monitor {
    tenants: HashMap<String, Schedule>,
    list_at: u64,
    /// The registry's generation when the list was read.
    generation: u64,
    /// When the budget allows the next KMS call.
    call_at: u64,
}

#[pg_guard]
#[unsafe(no_mangle)]
pub extern "C-unwind" fn cmk_encrypt_monitor_main(_argument: pg_sys::Datum) {
    super::handle_signals();
    let database = BackgroundWorker::get_extra();
    BackgroundWorker::connect_worker_to_spi(Some(database), None);
    let mut monitor = Monitor::default();
    loop {
        let next = monitor.round();
        sleep(Duration::from_nanos(next.saturating_sub(clock::now())).min(TICK));
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
        events::announce(self.tenants.keys());
        next
    }

    /// Takes in which tenants there are. None where the extension is not installed.
    fn list(&mut self) {
        let (installed, names) = transaction(|| {
            let installed = registry::watch().is_ok();
            let query = "SELECT tenant FROM cmk.tenant WHERE state = 'active'";
            let names = |client: &pgrx::spi::SpiClient<'_>| {
                let rows = client.select(query, None, &[])?;
                rows.map(|row| row.get::<String>(1)).collect::<pgrx::spi::Result<Vec<_>>>()
            };
            let names =
                if installed { with_snapshot(|| Spi::connect(names)) } else { Ok(Vec::new()) };
            (installed, names)
        });
        let Ok(names) = names else { return };
        let names: Vec<String> = names.into_iter().flatten().collect();
        self.tenants.retain(|name, _| names.contains(name));
        let now = clock::now();
        for name in names {
            // Spread over an interval: jittered() is within 3/4 and 5/4 of its argument.
            let interval = settings::monitor_interval();
            let check_at = now + jittered(interval * 2).saturating_sub(interval * 3 / 2);
            let new = Schedule { check_at, ..Schedule::default() };
            self.tenants.entry(name).or_insert(new);
        }
        self.list_at = now + if installed { LIST_EVERY } else { LOOK_EVERY };
    }

    /// Checks those whose time has come, the most overdue first, as far as the budget goes.
    fn check_due(&mut self) -> u64 {
        let in_use = renewals();
        let database = Backend.database();
        let check_at = |name: &str, schedule: &Schedule| {
            let renew_at = in_use.get(&TenantId::new(database, name)).copied();
            renew_at.map_or(schedule.check_at, |renew_at| renew_at.min(schedule.check_at))
        };
        let now = clock::now();
        let times = self.tenants.iter().map(|(name, schedule)| (check_at(name, schedule), name));
        let (mut due, later): (Vec<_>, Vec<_>) = times.partition(|(at, _)| *at <= now);
        let next = later.into_iter().map(|(at, _)| at).min().unwrap_or(u64::MAX);
        due.sort_unstable();
        let due: Vec<_> = due.into_iter().map(|(_, name)| name.clone()).collect();
        for name in due {
            let now = clock::now();
            if now < self.call_at {
                return self.call_at.min(next);
            }
            if self.check(&name) {
                let cost = 60 * SECOND / u64::from(settings::monitor_budget());
                self.call_at = self.call_at.max(now.saturating_sub(SECOND)) + cost;
            }
        }
        next
    }

    /// False if KMS was not asked.
    fn check(&mut self, name: &str) -> bool {
        let Some(schedule) = self.tenants.get_mut(name) else { return false };
        let (now, interval) = (clock::now(), settings::monitor_interval());
        schedule.check_at = now + interval - interval / 10 + jittered(interval / 10);
        let describes = now >= schedule.describe_at;
        if describes {
            schedule.describe_at = now + DESCRIBE_EVERY;
        }
        transaction(|| {
            let active = |tenant: &crate::registry::Tenant| tenant.state == TenantState::Active;
            let Ok(Some(tenant)) = registry::tenant(name).map(|found| found.filter(active)) else {
                return false;
            };
            let asked = keyring().check_tenant(&Backend, &tenant);
            let usable = is_usable(name);
            let changed = asked && usable != schedule.usable;
            schedule.usable = usable;
            if (describes || changed)
                && let Ok(facts) = Backend.kms(None).describe(&tenant.custody)
            {
                events::warn(name, &facts);
            }
            asked
        })
    }
}

fn is_usable(name: &str) -> bool {
    let id = TenantId::new(Backend.database(), name);
    let seen = shmem::with(|shared| shared.find(&id).and_then(|(_, record)| record.seen()));
    seen.is_some_and(|seen| seen.error.is_none())
}

/// When to renew the shared data keys of each tenant: before a query finds them older than the soft TTL.
fn renewals() -> HashMap<TenantId, u64> {
    let soft_ttl = settings::policy().soft_ttl;
    let ages = shmem::with(|shared| vault::ages(shared.slots));
    let mut renewals: HashMap<_, u64> = HashMap::new();
    for (tenant, unwrapped_at) in ages {
        let at = unwrapped_at + soft_ttl / 5 * 4;
        renewals.entry(tenant).and_modify(|first| *first = at.min(*first)).or_insert(at);
    }
    renewals
}

/// Without a snapshot of its own, so that waiting for KMS holds no row version back.
fn transaction<R>(work: impl FnOnce() -> R) -> R {
    // SAFETY: on the main thread of a worker that is connected to a database, outside of a transaction. An
    // ERROR ends the worker, and with it the transaction.
    unsafe {
        pg_sys::SetCurrentStatementStartTimestamp();
        pg_sys::StartTransactionCommand();
        let result = work();
        pg_sys::CommitTransactionCommand();
        result
    }
}

/// What SQL an event takes, in a transaction that has a snapshot.
fn with_snapshot<R>(work: impl FnOnce() -> R) -> R {
    // SAFETY: within a transaction on the main thread; an ERROR ends the worker.
    unsafe {
        pg_sys::PushActiveSnapshot(pg_sys::GetTransactionSnapshot());
        let result = work();
        pg_sys::PopActiveSnapshot();
        result
    }
}
