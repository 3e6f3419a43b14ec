//! Renews data keys of one database ahead of need where KMS is too far away for a query to do it.
//!
//! A background worker that the keyring worker starts when a query finds a data key old. It asks
//! KMS about the tenants concerned, which renews what all processes share, and stays for a while:
//! its connections and credentials serve the next time.

pub mod launch;

use super::background::{handle_signals, sleep};
use super::monitor::checks::Checks;
use super::monitor::session::{Database, connect, transaction};
use super::monitor::tenants::{active_tenant, active_tenants};
use super::registry::read;
use super::settings::values;
use super::shared_memory::access;
use super::{clock, identity, interrupt};
use cmk_keyring::shared::identity::TenantId;
use pgrx::pg_guard;
use pgrx::pg_sys;
use std::collections::{BTreeSet, HashSet};
use std::time::Duration;

/// As `pg_stat_activity` shows it.
const NAME: &str = "cmk_encrypt renewer";

/// How often to see whether the database is wanted by somebody else.
const TICK: Duration = Duration::from_secs(1);
/// Longest to stay with nothing to do: 10 minutes.
const LONGEST_REST: u64 = 600_000_000_000;

#[pg_guard]
#[unsafe(no_mangle)]
pub extern "C-unwind" fn cmk_encrypt_renewer_main(argument: pg_sys::Datum) {
    handle_signals();
    connect(Database::Numbered(argument.value() as u32));
    interrupt::give_way();
    let mut busy_at = clock::now();
    while access::has_worker() && !transaction(interrupt::is_database_wanted) {
        let wanted = wanted();
        let now = clock::now();
        match wanted.is_empty() {
            false => {
                renew(&wanted);
                busy_at = clock::now();
            }
            // Who stays until the next renewal is due has its connections at hand.
            true if now - busy_at > (values::policy().soft_ttl * 2).min(LONGEST_REST) => return,
            true => sleep(TICK),
        }
    }
}

/// The tenants of this database for which a renewal is wanted.
fn wanted() -> HashSet<TenantId> {
    let mut wanted = HashSet::new();
    let (database, mut databases) = (identity::database(), BTreeSet::new());
    access::in_chunks(|range| {
        access::read(|shared| shared.wanting_renewal(range.clone(), &mut databases));
    });
    if databases.contains(&database) {
        access::in_chunks(|range| {
            let more = access::with(|shared| shared.note_renewals(range.clone(), database));
            wanted.extend(more);
        });
    }
    wanted
}

/// Side by side. What could not be renewed is wanted again, or done by a query.
fn renew(wanted: &HashSet<TenantId>) {
    let Ok(names) = transaction(active_tenants) else { return };
    let mut names = names.iter().filter(|name| wanted.contains(&read::tenant_id(name)));
    let mut checks = Checks::new();
    loop {
        while checks.has_room()
            && let Some(name) = names.next()
        {
            // Without room, a query sees to it.
            if let Some(tenant) = transaction(|| active_tenant(name)) {
                checks.check(tenant);
            }
        }
        if checks.is_empty() || transaction(interrupt::is_database_wanted) {
            return;
        }
        checks.wait();
    }
}
