//! Getting a data key: from what other processes unwrapped, or from KMS.

use crate::cache::{Failure, NewKey, Ready};
use crate::keyring::{Keyring, Wanted};
use crate::policy::Policy;
use crate::process::Process;
use crate::shared::identity::Subject;
use crate::shared::now::jittered;
use crate::shared::single_flight::{SharedDataKey, Step};
use crate::shared::tag::Tag;
use crate::tenant::Tenant;
use crate::unwrap::{Superseded, Urgency};
use cmk_crypto::aead::Cipher;
use cmk_crypto::commitment::DekId;
use cmk_crypto::key::SecretKey;
use cmk_crypto::locked::Locked;
use cmk_crypto::scrub::scrub_stack;
use cmk_crypto::token::TokenKey;
use cmk_error::{Error, Instant, KeyState, Reason, Result};
use cmk_kms::Purpose;
use std::sync::Arc;

impl Keyring {
    pub(crate) fn fetch_key(
        &self,
        process: &impl Process,
        tenant: &Arc<Tenant>,
        wanted: Wanted,
    ) -> Result<()> {
        let policy = process.policy();
        let registry = process.registry_generation();
        let data_key = wanted.pick(tenant)?;
        let dek_id = data_key.commitment.dek_id();
        self.check_failure(&tenant.name, dek_id, process.now())?;
        self.stats.misses.add(1);

        let subject = process.subject(tenant);
        let fingerprint = subject.fingerprint(data_key);
        let (mut waited, mut superseded) = (false, Superseded::none(process));
        let fetched = loop {
            let (pid, now) = (process.pid(), process.now_on_both());
            let step = process.transaction_memory(|shared| {
                shared.count_look(&subject, waited, now.instant);
                shared.begin(&subject, &fingerprint, pid, now, &policy.rules())
            });
            match step {
                Step::Take(taken) => break Ok(taken),
                Step::Refuse(error, until) => {
                    let failure = Failure { dek_id: None, error: error.clone(), until };
                    self.cache.update(tenant, |entry| entry.put_failure(failure));
                    return Err(error);
                }
                Step::Wait(call) => {
                    waited = true;
                    process.wait(call);
                }
                Step::Ask(permit) => {
                    let urgency = Urgency::Now;
                    match self.unwrap_for_all(process, tenant, data_key, &subject, permit, urgency)
                    {
                        Err(failed) if superseded.again(process, &failed) => {}
                        // That says nothing of the data key.
                        Err(failed) if failed.error.reason == Reason::TenantBusy => {
                            return Err(failed.error);
                        }
                        unwrapped => break unwrapped.map_err(|failed| failed.error),
                    }
                }
            }
        };
        let expanded = fetched.map(|SharedDataKey { dek, unwrapped_at, tag }| {
            let deadline = unwrapped_at + policy.ttl;
            remember_copy(process, &subject, deadline);
            (expand(process, dek, data_key.purpose, deadline, tag), unwrapped_at)
        });
        scrub_stack();
        let now = process.now();
        match expanded {
            Ok(((ready, tag), unwrapped_at)) => {
                self.cache.expire(now.saturating_sub(policy.ttl));
                let new = NewKey {
                    ready,
                    dek_id,
                    tag,
                    version: data_key.version,
                    current: tenant.current_data_key().is_ok_and(|current| current == data_key),
                    unwrapped_at,
                    refresh_at: refresh_at(unwrapped_at, &policy),
                };
                self.cache.put_key(tenant, new, now, policy.capacity);
                self.cache.update(tenant, |entry| entry.forget_failures(dek_id));
                Ok(())
            }
            Err(error) => {
                self.remember_failure(tenant, dek_id, &error, now + jittered(policy.failure_ttl));
                // What was refused may not be the tenant's key any more.
                let _ = process.generation();
                if process.registry_generation() == registry { Err(error) } else { Ok(()) }
            }
        }
    }

    fn check_failure(&self, name: &str, dek_id: DekId, now: Instant) -> Result<()> {
        let entry = self.cache.get(name);
        let mut failures = entry.iter().flat_map(|entry| &entry.failures);
        let concerns = |of: &&Failure| now < of.until && of.dek_id.is_none_or(|of| of == dek_id);
        match failures.find(concerns) {
            Some(failure) => Err(failure.error.clone()),
            None => Ok(()),
        }
    }

    /// A revoked key takes all its data keys with it; any other failure leaves them to their TTL.
    pub(crate) fn remember_failure(
        &self,
        tenant: &Arc<Tenant>,
        dek_id: DekId,
        error: &Error,
        until: Instant,
    ) {
        self.cache.update(tenant, |entry| match error.reason.key_state() {
            Some(KeyState::Revoked) => entry.keys.clear(),
            Some(_) if error.concerns_one_process() => {
                entry.put_failure(Failure { dek_id: None, error: error.clone(), until });
            }
            // All processes know it.
            Some(_) => {}
            None => {
                let dek_id = Some(dek_id);
                entry.put_failure(Failure { dek_id, error: error.clone(), until });
            }
        });
    }
}

/// While this process has uncommitted changes of the registry, the others are told of its copies
/// here.
pub(crate) fn remember_copy(process: &impl Process, subject: &Subject, until: Instant) {
    if process.has_uncommitted_registry_changes() {
        process.server_memory(|shared| shared.remember_copy(subject, until));
    }
}

/// In a frame of its own, which [`scrub_stack`] can overwrite.
#[inline(never)]
fn expand(
    process: &impl Process,
    dek: SecretKey,
    purpose: Purpose,
    deadline: Instant,
    tag: Tag,
) -> (Ready, Tag) {
    let tag = process.hold(tag);
    let ready = match purpose {
        Purpose::Values => Ready::Values(Locked::new(Cipher::new(&dek), deadline, tag.0)),
        Purpose::Index => Ready::Index(Locked::new(TokenKey::new(&dek), deadline, tag.0)),
    };
    process.erase_at(deadline);
    (ready, tag)
}

/// Soft TTL ± 10 %, so that processes that got a data key together don't come back together.
pub(crate) fn refresh_at(unwrapped_at: Instant, policy: &Policy) -> Instant {
    if !policy.refreshes() {
        return Instant::MAX;
    }
    let fifth = policy.soft_ttl / 5;
    let jitter = jittered(fifth * 2) - fifth * 3 / 2;
    unwrapped_at + policy.soft_ttl - policy.soft_ttl / 10 + jitter
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::process::{FakeProcess, SECOND, data_key, seal};

    fn policy(soft_ttl: u64) -> Policy {
        let second = SECOND;
        Policy {
            ttl: 300 * second,
            soft_ttl,
            refresh_wait: second,
            failure_ttl: second,
            call_timeout: second,
            budget: 0,
            capacity: 10,
        }
    }

    #[test]
    fn a_data_key_is_refreshed_around_its_soft_ttl() {
        let at = 7 * SECOND;
        // Odd, so that a fifth of it leaves a rest.
        let soft = 200 * SECOND + 4;
        let drawn: Vec<_> = (0..1000).map(|_| refresh_at(at, &policy(soft)) - at).collect();
        let (least, most) = (soft - soft / 10, soft + soft / 10);
        assert!(drawn.iter().all(|after| (least..=most).contains(after)));
        let spread = soft / 20;
        assert!(drawn.iter().any(|after| *after < least + spread));
        assert!(drawn.iter().any(|after| *after > most - spread));
        assert_eq!(refresh_at(at, &policy(300 * SECOND)), Instant::MAX);
    }

    #[test]
    fn a_failure_is_told_until_its_time_to_whom_it_concerns() {
        let (keyring, process) = (Keyring::new(), FakeProcess::new(&["acme", "globex"]));
        for name in ["acme", "globex"] {
            seal(&keyring, &process, name).unwrap();
        }
        let [one, other] = [1, 2].map(|version| data_key("acme", version).commitment.dek_id());
        let tenant = keyring.cache.get("acme").unwrap().tenant.clone();
        let put = |dek_id, until| {
            let failure = Failure { dek_id, error: Reason::KmsTimeout.into(), until };
            keyring.cache.update(&tenant, |entry| entry.put_failure(failure));
        };
        put(Some(one), 100);
        assert!(keyring.check_failure("acme", one, 99).is_err());
        assert!(keyring.check_failure("acme", one, 100).is_ok());
        assert!(keyring.check_failure("acme", other, 99).is_ok());
        // The customer managed key concerns every data key of its tenant.
        put(None, 100);
        assert!(keyring.check_failure("acme", other, 99).is_err());
        assert!(keyring.check_failure("acme", other, 100).is_ok());
        assert!(keyring.check_failure("globex", other, 99).is_ok());
    }
}
