//! What this process asked of key management services, one entry a request: what an audit trail
//! joins with the service's own, such as AWS CloudTrail, by the request id.
//!
//! Requests, not operations: a call that is retried leaves one entry for each attempt that went
//! out, and a role that has to be assumed first one for that, because the key's owner finds all of
//! them in its trail. Nothing in an entry is secret.

use crate::context::{EncryptionContext, Purpose};
use cmk_error::Reason;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Most entries kept until somebody takes them; the oldest go first.
pub const MOST: usize = 512;

/// One request that ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallTrace {
    /// `kms` and `sts` of AWS, `local`.
    pub service: &'static str,
    /// The service's own name for it: `Decrypt`, `AssumeRole`; for local keys `generate`, `wrap`,
    /// `unwrap`.
    pub operation: Box<str>,
    /// The key that it was made for. Of two, the one that a data key is moved from.
    pub key_uri: Box<str>,
    /// Where a data key is moved to.
    pub to_key_uri: Option<Box<str>>,
    /// Out of the encryption context; `None` for requests that have none.
    pub tenant: Option<Box<str>>,
    /// What the data key is for, likewise.
    pub purpose: Option<Purpose>,
    /// The service's name for the request, if it answered: letters, digits and hyphens.
    pub request_id: Option<Box<str>>,
    /// How it ended.
    pub outcome: Outcome,
    /// When it began, in microseconds since the Unix epoch.
    pub began: i64,
    /// How long it took.
    pub took: Duration,
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The service did what it was asked, and the answer made sense.
    Success,
    /// Why it did not.
    Failure(Reason),
    /// The caller was interrupted; the service may have done it.
    Interrupted,
}

impl Outcome {
    /// Why it failed, if the service or the way to it is to blame.
    pub fn reason(self) -> Option<Reason> {
        match self {
            Self::Failure(reason) => Some(reason),
            Self::Success | Self::Interrupted => None,
        }
    }

    /// `success`, the name of the reason, `interrupted`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Failure(reason) => reason.name(),
            Self::Interrupted => "interrupted",
        }
    }
}

#[derive(Default)]
struct Kept {
    calls: VecDeque<CallTrace>,
    lost: u64,
}

thread_local! {
    /// A process of PostgreSQL asks on its one thread.
    static KEPT: RefCell<Kept> = RefCell::default();
}

/// What ended since the last time, the oldest first.
pub fn take() -> Vec<CallTrace> {
    KEPT.with_borrow_mut(|kept| std::mem::take(&mut kept.calls)).into()
}

/// How many entries made room for newer ones before anybody took them, since the last time.
pub fn take_lost() -> u64 {
    KEPT.with_borrow_mut(|kept| std::mem::take(&mut kept.lost))
}

pub(crate) fn record(call: CallTrace) {
    KEPT.with_borrow_mut(|kept| {
        if kept.calls.len() >= MOST {
            kept.calls.pop_front();
            kept.lost += 1;
        }
        kept.calls.push_back(call);
    });
}

/// What a request is for: what all entries of one call have in common.
#[derive(Clone, Copy)]
pub(crate) struct About<'a> {
    pub key_uri: &'a str,
    pub to_key_uri: Option<&'a str>,
    pub context: Option<&'a EncryptionContext<'a>>,
}

impl About<'_> {
    /// An entry of a request that began then.
    pub fn entry(
        &self,
        service: &'static str,
        operation: impl Into<Box<str>>,
        outcome: Outcome,
        began: Began,
    ) -> CallTrace {
        CallTrace {
            service,
            operation: operation.into(),
            key_uri: self.key_uri.into(),
            to_key_uri: self.to_key_uri.map(Into::into),
            tenant: self.context.map(|context| context.tenant().into()),
            purpose: self.context.map(EncryptionContext::purpose),
            request_id: None,
            outcome,
            began: began.wall,
            took: began.elapsed(),
        }
    }
}

/// When a request began, for people and to measure by.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Began {
    wall: i64,
    clock: Instant,
}

impl Began {
    pub fn now() -> Self {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let wall = i64::try_from(wall.as_micros()).unwrap_or(i64::MAX);
        Self { wall, clock: Instant::now() }
    }

    pub fn elapsed(self) -> Duration {
        self.clock.elapsed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(number: usize) -> CallTrace {
        let about = About { key_uri: "local:acme", to_key_uri: None, context: None };
        about.entry("local", number.to_string(), Outcome::Success, Began::now())
    }

    #[test]
    fn the_oldest_make_room() {
        take();
        for number in 0..MOST + 3 {
            record(entry(number));
        }
        let taken = take();
        assert_eq!((taken.len(), &*taken[0].operation), (MOST, "3"));
        assert_eq!((take_lost(), take_lost()), (3, 0));
        assert!(take().is_empty());
    }

    #[test]
    fn outcomes_have_the_names_of_reasons() {
        assert_eq!(Outcome::Success.name(), "success");
        assert_eq!(Outcome::Failure(Reason::KeyDisabled).name(), "key_disabled");
        assert_eq!(Outcome::Failure(Reason::KeyDisabled).reason(), Some(Reason::KeyDisabled));
        assert_eq!(Outcome::Interrupted.reason(), None);
    }
}
