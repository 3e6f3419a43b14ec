//! Refreshes before the TTL. Errors never reach the query.

use crate::cache::CachedKey;
use crate::fetch::{refresh_at, remember_copy};
use crate::keyring::{Keyring, Wanted};
use crate::process::Process;
use crate::shared::identity::Subject;
use crate::shared::renewal::Renewal;
use crate::tenant::Tenant;
use crate::unwrap::Urgency;
use cmk_crypto::commitment::DekId;
use cmk_crypto::scrub::scrub_stack;
use cmk_error::Instant;
use std::sync::Arc;

/// How soon a process looks again for a younger copy of a data key, if it got none: 100 ms.
const LOOK_AGAIN: u64 = 100_000_000;

impl Keyring {
    /// Looks for a younger copy of a data key that still serves, for no longer than the policy
    /// allows.
    pub(crate) fn refresh_key(&self, process: &impl Process, tenant: &Arc<Tenant>, wanted: Wanted) {
        let policy = process.policy();
        let Ok(data_key) = wanted.pick(tenant) else { return };
        let dek_id = data_key.commitment.dek_id();
        let Some(unwrapped_at) = self.unwrapped_at(tenant, dek_id) else { return };
        let subject = process.subject(tenant);
        let fingerprint = subject.fingerprint(data_key);
        let (pid, now) = (process.pid(), process.now_on_both());
        // Should an interrupt cut this short, the next row isn't to begin it anew.
        self.with_cached(tenant, dek_id, |key| key.refresh_at.set(now.instant + LOOK_AGAIN));
        if !policy.refreshes() {
            return;
        }
        let (renewal, latency) = process.transaction_memory(|shared| {
            let (rules, wait) = (policy.rules(), policy.refresh_wait);
            let renewal =
                shared.begin_renewal(&subject, &fingerprint, unwrapped_at, pid, now, &rules, wait);
            let record = shared.find(&subject.id);
            (renewal, record.map_or(0, |(_, record)| record.renewals.latency.nanos()))
        });
        match renewal {
            Renewal::Take(taken) => {
                self.renew(process, tenant, &subject, dek_id, taken.unwrapped_at);
            }
            Renewal::Ask(permit, patience) => {
                let urgency = Urgency::Ahead(patience);
                let unwrapped =
                    self.unwrap_for_all(process, tenant, data_key, &subject, permit, urgency);
                let unwrapped = unwrapped.map(|younger| younger.unwrapped_at);
                scrub_stack();
                let took = process.now() - now.instant;
                if patience.is_stretched && took >= policy.refresh_wait {
                    process.log_short_wait(&tenant.name, took, false);
                }
                match unwrapped {
                    Ok(unwrapped_at) => self.renew(process, tenant, &subject, dek_id, unwrapped_at),
                    Err(failed) => self.remember_failure(tenant, dek_id, &failed.error, 0),
                }
            }
            Renewal::HandOver => {
                // A query that is not to wait at all doesn't; nobody need know.
                if policy.refresh_wait > 0 && latency >= policy.refresh_wait {
                    process.log_short_wait(&tenant.name, latency, true);
                }
                process.want_renewal();
            }
            Renewal::Later => {}
        }
    }

    fn unwrapped_at(&self, tenant: &Tenant, dek_id: DekId) -> Option<Instant> {
        let entry = self.cache.get(&tenant.name)?;
        entry.keys.iter().find(|key| key.dek_id == dek_id).map(|key| key.unwrapped_at.value())
    }

    /// KMS unwrapped the same data key again, so it may live longer.
    fn renew(
        &self,
        process: &impl Process,
        tenant: &Arc<Tenant>,
        subject: &Subject,
        dek_id: DekId,
        unwrapped_at: Instant,
    ) {
        let policy = process.policy();
        let deadline = unwrapped_at + policy.ttl;
        remember_copy(process, subject, deadline);
        self.with_cached(tenant, dek_id, |key| {
            key.unwrapped_at.set(unwrapped_at);
            key.refresh_at.set(refresh_at(unwrapped_at, &policy));
            key.ready.postpone(deadline);
        });
        process.erase_at(deadline);
    }

    fn with_cached(&self, tenant: &Arc<Tenant>, dek_id: DekId, work: impl FnOnce(&CachedKey)) {
        self.cache.update(tenant, |entry| {
            if let Some(key) = entry.keys.iter().find(|key| key.dek_id == dek_id) {
                work(key);
            }
        });
    }
}
