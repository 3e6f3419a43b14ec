//! Getting a data key: from what other processes unwrapped, or from KMS; and keeping it young.

use crate::cache::{CachedKey, Counter, Failure};
use crate::flight::{Fetched, Purpose};
use crate::keyring::{Keyring, Wanted};
use crate::shared::record::jittered;
use crate::shared::{Step, Subject, Tag, Taken};
use crate::tenant::Tenant;
use crate::{Host, Policy};
use cmk_crypto::aead::Cipher;
use cmk_crypto::commitment::DekId;
use cmk_crypto::key::SecretKey;
use cmk_crypto::locked::{Locked, scrub_stack};
use cmk_error::{Error, Instant, KeyState, Result};
use std::sync::Arc;
use std::time::Duration;

/// How soon a process looks again for a younger copy of a data key, if it got none.
const LOOK_AGAIN: u64 = 100_000_000;

impl Keyring {
    pub(crate) fn fetch_key(
        &self,
        host: &impl Host,
        tenant: &Arc<Tenant>,
        wanted: Wanted,
    ) -> Result<()> {
        let policy = host.policy();
        let data_key = wanted.pick(tenant)?;
        let dek_id = data_key.commitment.dek_id();
        self.check_failure(&tenant.name, dek_id, host.now())?;
        self.tell_hits(host);
        self.stats.misses.add(1);

        let subject = Subject::new(host.database(), tenant);
        let fingerprint = subject.fingerprint(data_key);
        let (mut waited, mut overtaken) = (false, false);
        let fetched = loop {
            let (process, now) = (host.process_id(), host.now_on_both());
            let step = host.shared(|shared| {
                shared.count_look(&subject, waited, now.instant);
                shared.begin(&subject, &fingerprint, process, now, &policy.rules())
            });
            match step {
                Step::Take(Taken { dek, unwrapped_at, tag }) => {
                    break Ok(Fetched { dek, unwrapped_at, tag });
                }
                Step::Refuse(error, until) => {
                    let failure = Failure { dek_id: None, error: error.clone(), until };
                    self.cache.update(tenant, |entry| entry.put_failure(failure));
                    return Err(error);
                }
                Step::Wait(flight) => {
                    waited = true;
                    host.wait(flight);
                }
                Step::Fetch(flight) => {
                    match self.fly(host, tenant, data_key, &subject, flight, Purpose::Need) {
                        Err(failed) if failed.overtaken && !overtaken => overtaken = true,
                        flown => break flown.map_err(|failed| failed.error),
                    }
                }
            }
        };
        let expanded = fetched.map(|fetched| {
            let Fetched { dek, unwrapped_at, tag } = fetched;
            note_copy(host, &subject, unwrapped_at + policy.ttl);
            (expand(host, dek, unwrapped_at + policy.ttl, tag), unwrapped_at)
        });
        scrub_stack();
        let now = host.now();
        match expanded {
            Ok(((cipher, tag), unwrapped_at)) => {
                self.cache.expire(now.saturating_sub(policy.ttl));
                let key = CachedKey {
                    cipher,
                    dek_id,
                    tag,
                    version: data_key.version,
                    current: tenant.current_data_key().is_ok_and(|current| current == data_key),
                    unwrapped_at: Counter::new(unwrapped_at),
                    refresh_at: Counter::new(refresh_at(unwrapped_at, &policy)),
                    last_used: Counter::new(now),
                    hits: Counter::default(),
                    hits_told: Counter::default(),
                };
                self.cache.put_key(tenant, key, policy.capacity);
                self.cache.update(tenant, |entry| entry.forget_failures(dek_id));
                Ok(())
            }
            Err(error) => {
                self.remember(tenant, dek_id, &error, now + jittered(policy.failure_ttl));
                Err(error)
            }
        }
    }

    /// Looks for a younger copy of a data key that still serves. Nothing that goes wrong is the query's
    /// business, and it takes no longer than the policy allows.
    pub(crate) fn refresh_key(&self, host: &impl Host, tenant: &Arc<Tenant>, wanted: Wanted) {
        let policy = host.policy();
        let Ok(data_key) = wanted.pick(tenant) else { return };
        let dek_id = data_key.commitment.dek_id();
        let Some(unwrapped_at) = self.unwrapped_at(tenant, dek_id) else { return };
        let subject = Subject::new(host.database(), tenant);
        let fingerprint = subject.fingerprint(data_key);
        let (process, now) = (host.process_id(), host.now_on_both());
        // Should an interrupt cut this short, the next row isn't to begin it anew.
        self.look_again(tenant, dek_id, now.instant + LOOK_AGAIN);
        let step = (policy.soft_ttl < policy.ttl).then(|| {
            host.shared(|shared| {
                let rules = policy.rules();
                shared.begin_refresh(&subject, &fingerprint, unwrapped_at, process, now, &rules)
            })
        });
        match step.flatten() {
            Some(Step::Take(taken)) => {
                self.renew(host, tenant, &subject, dek_id, taken.unwrapped_at);
            }
            Some(Step::Fetch(flight)) => {
                let purpose = Purpose::Ahead(Duration::from_nanos(policy.refresh_wait));
                let flown = self.fly(host, tenant, data_key, &subject, flight, purpose);
                let flown = flown.map(|younger| younger.unwrapped_at);
                scrub_stack();
                match flown {
                    Ok(unwrapped_at) => self.renew(host, tenant, &subject, dek_id, unwrapped_at),
                    Err(failed) => self.remember(tenant, dek_id, &failed.error, 0),
                }
            }
            _ => {}
        }
    }

    fn unwrapped_at(&self, tenant: &Tenant, dek_id: DekId) -> Option<Instant> {
        let entry = self.cache.get(&tenant.name)?;
        entry.keys.iter().find(|key| key.dek_id == dek_id).map(|key| key.unwrapped_at.value())
    }

    fn look_again(&self, tenant: &Arc<Tenant>, dek_id: DekId, at: Instant) {
        self.with_cached(tenant, dek_id, |key| key.refresh_at.set(at));
    }

    /// KMS unwrapped the same data key again, so it may live longer.
    fn renew(
        &self,
        host: &impl Host,
        tenant: &Arc<Tenant>,
        subject: &Subject,
        dek_id: DekId,
        unwrapped_at: Instant,
    ) {
        let policy = host.policy();
        note_copy(host, subject, unwrapped_at + policy.ttl);
        self.with_cached(tenant, dek_id, |key| {
            key.unwrapped_at.set(unwrapped_at);
            key.refresh_at.set(refresh_at(unwrapped_at, &policy));
            key.cipher.postpone(unwrapped_at + policy.ttl);
        });
        host.erase_at(unwrapped_at + policy.ttl);
    }

    fn with_cached(&self, tenant: &Arc<Tenant>, dek_id: DekId, work: impl FnOnce(&CachedKey)) {
        self.cache.update(tenant, |entry| {
            if let Some(key) = entry.keys.iter().find(|key| key.dek_id == dek_id) {
                work(key);
            }
        });
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
    fn remember(&self, tenant: &Arc<Tenant>, dek_id: DekId, error: &Error, until: Instant) {
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

/// While this process is alone, the others are told of its copies here.
fn note_copy(host: &impl Host, subject: &Subject, until: Instant) {
    if host.is_alone() {
        host.common(|shared| shared.note_copy(subject, until));
    }
}

/// In a frame of its own, which [`scrub_stack`] can overwrite.
#[inline(never)]
fn expand(host: &impl Host, dek: SecretKey, deadline: Instant, tag: Tag) -> (Locked<Cipher>, Tag) {
    let tag = host.hold(tag);
    let cipher = Locked::new(Cipher::new(&dek), deadline, tag.0);
    host.erase_at(deadline);
    (cipher, tag)
}

/// Soft TTL ± 10 %, so that processes that got a data key together don't come back together.
fn refresh_at(unwrapped_at: Instant, policy: &Policy) -> Instant {
    match policy.soft_ttl < policy.ttl {
        true => unwrapped_at + policy.soft_ttl - policy.soft_ttl / 10 + jitter(policy.soft_ttl / 5),
        false => Instant::MAX,
    }
}

fn jitter(range: u64) -> u64 {
    jittered(range * 2) - range * 3 / 2
}
