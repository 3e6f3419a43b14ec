//! Changes of a key's state, the last eight of them, and errors: all in plain memory.

use cmk_error::{Error, KeyState, Reason};

/// Changes that a record remembers.
const LENGTH: usize = 8;
const INFO_MAX: usize = 158;

/// A change of state: from one to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// `None`: KMS was not asked before.
    pub from: Option<KeyState>,
    /// `None`: nothing was learned of the key.
    pub to: Option<KeyState>,
    /// Still revoked, but otherwise: a key that was disabled is to be deleted.
    pub other_reason: bool,
}

impl Change {
    /// None.
    pub const NONE: Self = Self { from: None, to: None, other_reason: false };

    /// The first sight of a key that works is no news.
    pub fn is_news(&self) -> bool {
        let first_and_usable = self.from.is_none() && self.to == Some(KeyState::Usable);
        self.other_reason || self.from != self.to && !first_and_usable
    }
}

/// A change of state that is past.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PastChange {
    /// Microseconds since the Unix epoch.
    pub at: i64,
    /// From what to what.
    pub change: Change,
    /// Why, unless the key became usable.
    pub reason: Option<Reason>,
}

/// The last changes of a key's state, and how many there were.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct History {
    /// Changes so far.
    pub changes: u64,
    /// How many of them the monitor made known.
    pub announced: u64,
    /// Number n at n modulo the length.
    last: [EncodedChange; LENGTH],
}

/// Places are counted from 1; 0 stands for none.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
struct EncodedChange {
    /// Microseconds since the Unix epoch.
    at: i64,
    /// Places in [`KeyState::ALL`].
    from: u8,
    to: u8,
    /// Place in [`Reason::ALL`].
    reason: u8,
}

impl History {
    pub(super) fn add(&mut self, past: &PastChange) {
        let place = |state: Option<KeyState>| state.map_or(0, |state| state as u8 + 1);
        self.last[self.changes as usize % LENGTH] = EncodedChange {
            at: past.at,
            from: place(past.change.from),
            to: place(past.change.to),
            reason: past.reason.map_or(0, |reason| reason as u8 + 1),
        };
        self.changes += 1;
    }

    /// The changes that were not made known yet, oldest first; of many, the last ones.
    pub fn unannounced(&self) -> impl Iterator<Item = PastChange> + '_ {
        let first = self.announced.max(self.changes.saturating_sub(LENGTH as u64));
        (first..self.changes).map(|number| {
            let past = &self.last[number as usize % LENGTH];
            let (from, to) =
                (at_place(&KeyState::ALL, past.from), at_place(&KeyState::ALL, past.to));
            let other_reason = past.from == past.to;
            let change = Change { from, to, other_reason };
            PastChange { at: past.at, change, reason: at_place(Reason::ALL, past.reason) }
        })
    }
}

/// An [`Error`] in plain memory; all zero: none.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(super) struct EncodedError {
    /// Its place in [`Reason::ALL`], from 1.
    reason: u8,
    info_len: u8,
    info: [u8; INFO_MAX],
}

impl Default for EncodedError {
    fn default() -> Self {
        Self { reason: 0, info_len: 0, info: [0; INFO_MAX] }
    }
}

impl EncodedError {
    pub fn of(error: &Error) -> Self {
        // Identifiers, all ASCII. The first ones say most; those that don't fit are left out.
        let text = whole_fields(error.info().unwrap_or_default());
        let mut info = [0; INFO_MAX];
        info[..text.len()].copy_from_slice(text.as_bytes());
        Self { reason: error.reason as u8 + 1, info_len: text.len() as u8, info }
    }

    pub fn reason(&self) -> Option<Reason> {
        at_place(Reason::ALL, self.reason)
    }

    pub fn error(&self) -> Option<Error> {
        let reason = self.reason()?;
        let info = self.info.get(..usize::from(self.info_len)).unwrap_or_default();
        Some(match std::str::from_utf8(info) {
            Ok(info) if !info.is_empty() => Error::new(reason).with_info(info),
            _ => Error::new(reason),
        })
    }

    /// What it says about the key.
    pub fn state(&self) -> KeyState {
        self.reason().and_then(Reason::key_state).unwrap_or(KeyState::Usable)
    }
}

/// As many of the fields, from the first one on, as fit.
fn whole_fields(info: &str) -> &str {
    if info.len() <= INFO_MAX {
        return info;
    }
    let cut = info.bytes().take(INFO_MAX + 1).rposition(|byte| byte == b' ');
    cut.and_then(|at| info.get(..at)).unwrap_or_default()
}

/// What stands at a place of a table, counted from 1.
fn at_place<T: Copy>(table: &[T], place: u8) -> Option<T> {
    table.get(usize::from(place).checked_sub(1)?).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(from: Option<KeyState>, to: KeyState) -> Change {
        Change { from, to: Some(to), other_reason: false }
    }

    #[test]
    fn what_changed_is_news_and_that_a_key_works_at_first_is_not() {
        use KeyState::{Revoked, Unreachable, Usable};
        assert!(!Change::NONE.is_news());
        assert!(!change(None, Usable).is_news());
        assert!(!change(Some(Usable), Usable).is_news());
        assert!(change(None, Revoked).is_news());
        assert!(change(Some(Usable), Unreachable).is_news());
        assert!(change(Some(Revoked), Usable).is_news());
        assert!(!change(Some(Revoked), Revoked).is_news());
        let other = Change { other_reason: true, ..change(Some(Revoked), Revoked) };
        assert!(other.is_news());
    }

    #[test]
    fn of_many_changes_the_last_ones_are_told_oldest_first_and_once() {
        let states = [KeyState::Revoked, KeyState::Usable];
        let past = |number: usize| PastChange {
            at: number as i64,
            change: change(Some(states[number % 2]), states[(number + 1) % 2]),
            reason: (number % 2 == 1).then_some(Reason::KeyDisabled),
        };
        let mut history = History::default();
        (0..5).for_each(|number| history.add(&past(number)));
        let told = |history: &History| history.unannounced().collect::<Vec<_>>();
        assert_eq!(told(&history), (0..5).map(past).collect::<Vec<_>>());
        history.announced = 3;
        assert_eq!(told(&history), [past(3), past(4)]);
        (5..20).for_each(|number| history.add(&past(number)));
        assert_eq!(told(&history), (12..20).map(past).collect::<Vec<_>>());
        history.announced = history.changes;
        assert_eq!(told(&history), []);
    }

    #[test]
    fn another_reason_for_the_same_state_is_told_as_such() {
        let mut history = History::default();
        let same = change(Some(KeyState::Revoked), KeyState::Revoked);
        let change = Change { other_reason: true, ..same };
        let past = PastChange { at: 1, change, reason: Some(Reason::KeyPendingDeletion) };
        history.add(&past);
        assert_eq!(history.unannounced().collect::<Vec<_>>(), [past]);
    }

    #[test]
    fn an_error_comes_back_as_it_was_unless_its_identifiers_are_too_long() {
        for reason in Reason::ALL {
            let error = Error::new(*reason).with_info("request_id=1");
            let encoded = EncodedError::of(&error);
            assert_eq!(encoded.error(), Some(error));
            assert_eq!(encoded.reason(), Some(*reason));
            assert_eq!(encoded.state(), reason.key_state().unwrap_or(KeyState::Usable));
        }
        let back = |info: &str| {
            EncodedError::of(&Error::new(Reason::KmsTimeout).with_info(info)).error().unwrap()
        };
        let (fits, too_long) = ("x".repeat(158), "x".repeat(159));
        assert_eq!(back(&fits).info(), Some(&*fits));
        assert_eq!(back(&too_long), Error::new(Reason::KmsTimeout));
        for (last, kept) in [(146, "cause=dns a=1"), (145, "cause=dns a=1"), (144, "")] {
            let info = format!("cause=dns a=1 {}", "x".repeat(last));
            let kept = if kept.is_empty() { &*info } else { kept };
            assert_eq!(back(&info).info(), Some(kept), "{last}");
        }
        assert_eq!(back(""), Error::new(Reason::KmsTimeout));
        assert_eq!(EncodedError::default().error(), None);
        assert_eq!(EncodedError::default().state(), KeyState::Usable);
    }
}
