//! Which keys are checked when, and what comes of it.

use super::{Monitor, SECOND, TICK, last_seen, seen};
use crate::pg::monitor::checks::{Begun, Ended};
use crate::pg::monitor::events;
use crate::pg::monitor::schedule::Schedule;
use crate::pg::monitor::session::{transaction, try_transaction};
use crate::pg::monitor::tenants::active_tenant;
use crate::pg::process::THIS_PROCESS;
use crate::pg::settings::values;
use crate::pg::shared_memory::access;
use crate::pg::{clock, elog, report};
use cmk_error::{Instant, KeyState, Result};
use cmk_keyring::process::Process;
use cmk_keyring::shared::identity::TenantId;
use cmk_keyring::shared::record::Warnings;
use cmk_keyring::tenant::Tenant;
use cmk_kms::KeyFacts;
use std::collections::HashMap;

/// Shortest time between two looks at all tenants.
const LOOK_PAUSE: u64 = SECOND / 20;
/// The same for each tenant that there is.
const LOOK_PAUSE_EACH: u64 = 10_000;
/// Longest to take in answers before something else is seen to.
const LISTEN: u64 = SECOND / 5;
/// Most checks that begin before answers are taken in.
const BEGIN: usize = 16;
/// Most calls at a time about keys that KMS gave no answer for last time.
const MOST_DARK: usize = 32;
/// How often KMS is asked for what there is to warn of.
const DESCRIBE_EVERY: u64 = 3600 * SECOND;

impl Monitor {
    /// Finds those whose time has come, the most overdue first; of those that KMS gave no answer
    /// for last time, as many as leave room for the others.
    pub(super) fn find_due(&mut self) {
        let interval = values::monitor_interval();
        let (now, renewals) = (clock::now(), renewals());
        let resting = self.tenants.iter().filter(|(_, schedule)| !schedule.is_asked);
        let times = resting.map(|(name, schedule)| {
            let renew_at = renewals.get(&schedule.id).copied().unwrap_or(u64::MAX);
            (schedule.check_at(interval, renew_at), name)
        });
        let (mut due, later): (Vec<_>, Vec<_>) = times.partition(|(at, _)| *at <= now);
        due.sort_unstable();
        let lag = due.first().map_or(0, |(at, _)| now - at);
        let next = later.into_iter().map(|(at, _)| at).min().unwrap_or(u64::MAX);
        let asked = |schedule: &&Schedule| schedule.is_asked && !schedule.answers;
        let mut dark = self.tenants.values().filter(asked).count();
        due.retain(|(_, name)| {
            let is_dark = self.tenants.get(*name).is_some_and(|schedule| !schedule.answers);
            dark += usize::from(is_dark);
            !is_dark || dark <= MOST_DARK
        });
        self.due = due.into_iter().map(|(_, name)| name.clone()).collect();
        let longest = TICK.as_nanos() as u64;
        let pause = (LOOK_PAUSE + self.tenants.len() as u64 * LOOK_PAUSE_EACH).min(longest);
        self.look_at = next.clamp(now + pause, now + longest);
        self.is_news = true;
        self.tell_lag(lag, interval);
    }

    /// Says once that the budget keeps checks from being made in time, until they are again.
    fn tell_lag(&mut self, lag: u64, interval: u64) {
        if lag < interval / 2 {
            self.is_late = false;
        } else if lag > interval && clock::now() < self.call_at && !self.is_late {
            self.is_late = true;
            let (tenants, budget) = (self.tenants.len(), values::monitor_budget());
            let database = transaction(report::database);
            elog::log_line(&format!(
                "cmk_encrypt monitor: cmk_encrypt.monitor_budget={budget} is too little for \
                 {tenants} tenants: checks of keys are {} s late database={database}",
                lag / SECOND
            ));
        }
    }

    /// Asks about those whose time has come, as far as the budget goes, and takes in what KMS
    /// answers, for a while.
    pub(super) fn ask_and_listen(&mut self) {
        let until = clock::now() + LISTEN;
        loop {
            seen(clock::now());
            self.ask();
            match self.checks.wait() {
                None => return,
                Some(Ended::Checked(tenant)) => self.checked(tenant),
                Some(Ended::Described(tenant, facts)) => self.described(&tenant, facts),
            }
            self.is_news = true;
            if clock::now() >= until {
                return;
            }
        }
    }

    /// Begins checks.
    fn ask(&mut self) {
        for _ in 0..BEGIN {
            if self.is_draining || !self.checks.has_room() || clock::now() < self.call_at {
                return;
            }
            let Some(name) = self.due.pop_front() else { return };
            if self.check(&name) == Begun::NoRoom {
                self.due.push_front(name);
                return;
            }
        }
    }

    fn check(&mut self, name: &str) -> Begun {
        let Some(schedule) = self.tenants.get_mut(name) else { return Begun::NotNow };
        // Where the tables are locked, in the next round; if the tenant is gone the next list will
        // tell.
        let Some(tenant) = transaction(|| active_tenant(name)) else { return Begun::NotNow };
        let begun = self.checks.check(tenant.clone());
        if begun != Begun::NoRoom {
            schedule.begin(clock::now());
        }
        match begun {
            Begun::Asked => {
                schedule.is_asked = true;
                self.spend(1);
            }
            Begun::NotNow => self.checked(tenant),
            Begun::NoRoom => {}
        }
        begun
    }

    /// Its check is over, or there was no need of one.
    fn checked(&mut self, tenant: Tenant) {
        let Some(schedule) = self.tenants.get_mut(&*tenant.name) else { return };
        schedule.is_asked = false;
        let (changes, state) = last_seen(&schedule.id);
        let answers = matches!(state, None | Some(KeyState::Usable | KeyState::Revoked));
        schedule.answers = answers;
        let changed = changes != schedule.changes;
        // While KMS gives no answer there is nothing to ask it about.
        if answers && (changed || clock::now() >= schedule.describe_at) {
            schedule.changes = changes;
            schedule.describe_at = clock::now() + DESCRIBE_EVERY;
            if !std::mem::replace(&mut schedule.is_to_describe, true) {
                self.to_describe.push_back(tenant);
            }
        }
    }

    /// Asks what there is to warn of.
    pub(super) fn describe(&mut self) {
        while !self.is_draining
            && let Some(tenant) = self.to_describe.front()
        {
            if self.tenants.contains_key(&*tenant.name) {
                if !self.checks.describe(tenant) {
                    return;
                }
                self.spend(2);
            }
            self.to_describe.pop_front();
        }
    }

    fn described(&mut self, tenant: &Tenant, described: Result<KeyFacts>) {
        let name = &*tenant.name;
        let Some(schedule) = self.tenants.get_mut(name) else { return };
        schedule.is_to_describe = false;
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
            let subject = THIS_PROCESS.subject(tenant);
            access::with(|shared| shared.put_warnings(&subject, warnings));
        }
        if let Ok(facts) = described
            && !self.write(|_| try_transaction(|| events::warn(name, &facts)) == Some(true))
            && let Some(schedule) = self.tenants.get_mut(name)
        {
            (schedule.describe_at, schedule.again_at) = (self.write_at, self.write_at);
        }
    }
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
