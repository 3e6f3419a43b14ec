//! Asks KMS about several keys side by side: one whose KMS hangs delays no other.
//!
//! What PostgreSQL has to do with a call, such as taking in its answer, is done between two waits,
//! in a transaction of its own. While it waits there is none.

use super::session::transaction;
use crate::pg::descriptors::Descriptors;
use crate::pg::interrupt::{self, WaitEvent};
use crate::pg::kms_trail::Trail;
use crate::pg::process::{THIS_PROCESS, ThisProcess, keyring};
use crate::pg::report::IntoSql;
use crate::pg::settings::values;
use cmk_crypto::key::SecretKey;
use cmk_crypto::scrub::scrub_stack;
use cmk_error::Result;
use cmk_keyring::check::Check;
use cmk_keyring::tenant::Tenant;
use cmk_kms::{ConcurrentCalls, KeyFacts};
use pgrx::check_for_interrupts;
use std::rc::Rc;

/// Most calls at a time. Each may take four descriptors, of which a process has 1000 by default and
/// leaves a third to such as us.
const MOST: usize = 64;
/// Most of them that are checks: tenants that are well are described even where many hang.
const MOST_CHECKS: usize = 56;

/// Calls to KMS of this process.
pub struct Checks {
    calls: ConcurrentCalls<Answered>,
    trail: Trail,
}

/// A call that ended, and what it took.
struct Answered {
    answer: Answer,
    _descriptors: Descriptors,
}

enum Answer {
    Unwrapped(Check<'static, ThisProcess>, Result<SecretKey>),
    Described(Tenant, Result<KeyFacts>),
}

/// What came of the wish to check a key.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Begun {
    /// KMS is being asked.
    Asked,
    /// It isn't time to.
    NotNow,
    /// There is no room for another call.
    NoRoom,
}

/// What ended.
pub enum Ended {
    /// The check of this tenant's key. All processes know what came of it.
    Checked(Tenant),
    /// What there is to know of this tenant's key.
    Described(Tenant, Result<KeyFacts>),
}

impl Checks {
    /// None yet.
    pub fn new() -> Self {
        Self { calls: ConcurrentCalls::default(), trail: transaction(Trail::begin) }
    }

    /// True if nothing is under way.
    pub fn is_empty(&self) -> bool {
        self.calls.is_empty()
    }

    /// Whether another check may begin.
    pub fn has_room(&self) -> bool {
        self.calls.len() < MOST_CHECKS
    }

    /// Asks whether a tenant's key is usable, by the data key that seals now.
    pub fn check(&mut self, tenant: Tenant) -> Begun {
        let descriptors = Descriptors::acquire();
        if descriptors.is_err() && !self.is_empty() {
            return Begun::NoRoom;
        }
        let begun = transaction(|| keyring().begin_check(&THIS_PROCESS, tenant));
        let Some((check, wrapped)) = begun else { return Begun::NotNow };
        match descriptors {
            Ok(descriptors) => {
                self.calls.unwrap(&Rc::new(values::kms()), wrapped, |answer| Answered {
                    answer: Answer::Unwrapped(check, answer),
                    _descriptors: descriptors,
                });
            }
            Err(error) => transaction(|| keyring().end_check(check, Err(error))),
        }
        Begun::Asked
    }

    /// Asks what there is to know of a tenant's key. False if there is no room for another call.
    pub fn describe(&mut self, tenant: &Tenant) -> bool {
        let Ok(descriptors) = Descriptors::acquire() else { return false };
        if self.calls.len() >= MOST {
            return false;
        }
        let (tenant, key) = (tenant.clone(), tenant.customer_key.clone());
        self.calls.describe(&Rc::new(values::kms()), key, |facts| Answered {
            answer: Answer::Described(tenant, facts),
            _descriptors: descriptors,
        });
        true
    }

    /// Waits until a call has ended, for some tens of milliseconds. `None`: none has.
    pub fn wait(&mut self) -> Option<Ended> {
        let ended = self.take();
        scrub_stack();
        ended
    }

    /// In a frame of its own, which [`scrub_stack`] can overwrite.
    #[inline(never)]
    fn take(&mut self) -> Option<Ended> {
        if self.calls.is_empty() {
            return None;
        }
        let answered = {
            let _waiting = WaitEvent::start(interrupt::kms());
            self.calls.wait()
        };
        self.trail.log();
        // Without what waiting takes, none of them ends: the worker does, and is started again.
        let Some(answered) = answered.or_raise() else {
            if interrupt::has_to_end() {
                // The exit would not log them.
                self.calls = ConcurrentCalls::default();
                self.trail.log();
            }
            check_for_interrupts!();
            return None;
        };
        Some(match answered.answer {
            Answer::Unwrapped(check, answer) => {
                let tenant = check.tenant().clone();
                transaction(|| keyring().end_check(check, answer));
                Ended::Checked(tenant)
            }
            Answer::Described(tenant, facts) => Ended::Described(tenant, facts),
        })
    }
}
