//! Watches the keys of one database's tenants: asks KMS on a schedule whether they are usable, so that a
//! revocation is noticed even when nobody queries and data keys in use are renewed before a query has to,
//! and makes known what changes.
//!
//! It is a superuser in a database that others may own, so it trusts none of the database's settings and
//! touches no table that isn't the extension's. Each step is a transaction of its own. If one fails the
//! worker ends, and the sweeper starts another.

mod events;
mod session;

use super::sleep;
use crate::keyring::Host;
use crate::kms::Kms;
use crate::pg::backend::{Backend, keyring};
use crate::pg::{clock, invalidation, registry, settings, shmem};
use crate::registry::TenantState;
use crate::shared::TenantId;
use pgrx::bgworkers::BackgroundWorker;
use pgrx::{Spi, pg_guard, pg_sys};
use session::{transaction, with_snapshot};
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
struct Schedule {
    checked_at: u64,
    /// Share of an interval by which the checks of tenants are kept apart.
    spread: f64,
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
    session::connect(BackgroundWorker::get_extra());
    let mut monitor = Monitor::default();
    loop {
        let next = monitor.round();
        sleep(Duration::from_nanos(next.saturating_sub(clock::now())).min(TICK));
    }
}

impl Schedule {
    /// Within an interval at first, then 90 to 100 % of one after the last check.
    fn check_at(&self, interval: u64) -> u64 {
        let share = if self.describe_at == 0 { self.spread } else { 0.9 + self.spread / 10.0 };
        self.checked_at + (interval as f64 * share) as u64
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
            if registry::watch().is_err() || registry::events_of_extension().is_none() {
                return (false, Ok(Vec::new()));
            }
            let query = "SELECT tenant FROM cmk.tenant WHERE state OPERATOR(pg_catalog.=) 'active'";
            let names = |client: &pgrx::spi::SpiClient<'_>| {
                let rows = client.select(query, None, &[])?;
                rows.map(|row| row.get::<String>(1)).collect::<pgrx::spi::Result<Vec<_>>>()
            };
            (true, with_snapshot(|| Spi::connect(names)))
        });
        let Ok(names) = names else { return };
        let names: Vec<String> = names.into_iter().flatten().collect();
        self.tenants.retain(|name, _| names.contains(name));
        let now = clock::now();
        for name in names {
            let spread = f64::from(getrandom::u32().unwrap_or(0)) / f64::from(u32::MAX);
            let new = Schedule { checked_at: now, spread, describe_at: 0, usable: false };
            self.tenants.entry(name).or_insert(new);
        }
        self.list_at = now + if installed { LIST_EVERY } else { LOOK_EVERY };
    }

    /// Checks those whose time has come, the most overdue first, as far as the budget goes.
    fn check_due(&mut self) -> u64 {
        let (database, interval) = (Backend.database(), settings::monitor_interval());
        let renewals = renewals();
        let check_at = |name: &str, schedule: &Schedule| {
            let check_at = schedule.check_at(interval);
            let renew_at = renewals.get(&TenantId::new(database, name));
            renew_at.map_or(check_at, |renew_at| check_at.min(*renew_at))
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
            let cost = 60 * SECOND / u64::from(settings::monitor_budget());
            let calls = self.check(&name);
            self.call_at = self.call_at.max(now.saturating_sub(SECOND)) + calls * cost;
        }
        next
    }

    /// Returns how many calls it made.
    fn check(&mut self, name: &str) -> u64 {
        let Some(schedule) = self.tenants.get_mut(name) else { return 0 };
        let now = clock::now();
        schedule.checked_at = now;
        let describes = now >= schedule.describe_at;
        if describes {
            schedule.describe_at = now + DESCRIBE_EVERY;
        }
        transaction(|| {
            if registry::events_of_extension().is_none() {
                return 0;
            }
            let active = |tenant: &crate::registry::Tenant| tenant.state == TenantState::Active;
            let Ok(Some(tenant)) = registry::tenant(name).map(|found| found.filter(active)) else {
                return 0;
            };
            // SAFETY: on the main thread. What a catalog snapshot would hold back while KMS is waited for, no
            // vacuum could remove.
            unsafe { pg_sys::InvalidateCatalogSnapshot() };
            let asked = keyring().check_tenant(&Backend, &tenant);
            let usable = is_usable(name);
            let changed = asked && usable != schedule.usable;
            schedule.usable = usable;
            if !(describes || changed) {
                return asked.into();
            }
            if let Ok(facts) = Backend.kms(None).describe(&tenant.custody) {
                events::warn(name, &facts);
            }
            u64::from(asked) + 2
        })
    }
}

fn is_usable(name: &str) -> bool {
    let id = TenantId::new(Backend.database(), name);
    let seen = shmem::with(|shared| shared.find(&id).and_then(|(_, record)| record.seen()));
    seen.is_some_and(|seen| seen.error.is_none())
}

/// When to renew the shared data keys of each tenant that uses them: before a query finds them older than the
/// soft TTL.
fn renewals() -> HashMap<TenantId, u64> {
    let soft_ttl = settings::policy().soft_ttl;
    let mut renewals: HashMap<_, u64> = HashMap::new();
    for (tenant, unwrapped_at) in shmem::with(|shared| shared.in_use()) {
        let at = unwrapped_at + soft_ttl / 5 * 4;
        renewals.entry(tenant).and_modify(|first| *first = at.min(*first)).or_insert(at);
    }
    renewals
}
