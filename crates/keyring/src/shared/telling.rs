//! How often changes of a key's state are told: logged, written down, announced.
//!
//! After a change of a policy or a grant KMS may say yes and no in turn for minutes, while it
//! spreads. Each answer holds, but not each is news.

use super::history::Change;
use cmk_error::{Instant, KeyState, Reason};

/// Changes that are told at once, if there were none for a while.
const BURST: u64 = 6;
/// Beyond that, one in a minute.
const INTERVAL: u64 = 60_000_000_000;

/// What was told of a key. All zero: nothing.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Telling {
    /// The place in [`Reason::ALL`], from 2, of what was told last; 1: that the key is usable; 0:
    /// nothing.
    told: u8,
    /// When the last interval ends of those that the changes told so far have taken up.
    taken_up_to: Instant,
}

impl Telling {
    /// Nothing is told of another key yet, but it has no more to say than the one before.
    pub(super) fn for_another_key(self) -> Self {
        Self { taken_up_to: self.taken_up_to, ..Self::default() }
    }

    /// What there is to tell of a key that failed for a reason, or is usable: the change since what
    /// was told last. None if that is the same, or was told too often; then a
    /// later answer brings it up again.
    pub(super) fn tell(&mut self, reason: Option<Reason>, now: Instant) -> Change {
        let told = self.told();
        let (from, to) = (told.map(state), Some(state(reason)));
        let other_reason = from == to && to == Some(KeyState::Revoked) && told != Some(reason);
        let change = Change { from, to, other_reason };
        let admitted = !change.is_news() || self.admits(now);
        if from == to && !other_reason || !admitted {
            return Change::NONE;
        }
        self.told = reason.map_or(1, |reason| reason as u8 + 2);
        change
    }

    /// What was told last, if anything was.
    fn told(&self) -> Option<Option<Reason>> {
        let place = usize::from(self.told).checked_sub(1)?;
        Some(place.checked_sub(1).and_then(|place| Reason::ALL.get(place)).copied())
    }

    fn admits(&mut self, now: Instant) -> bool {
        let taken_up_to = self.taken_up_to.max(now);
        let admits = taken_up_to - now <= INTERVAL * (BURST - 1);
        if admits {
            self.taken_up_to = taken_up_to.saturating_add(INTERVAL);
        }
        admits
    }
}

/// What a reason, or that there is none, says of a key.
fn state(reason: Option<Reason>) -> KeyState {
    reason.and_then(Reason::key_state).unwrap_or(KeyState::Usable)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    const ANSWERS: [Option<Reason>; 2] = [Some(Reason::KeyAccessDenied), None];

    #[test]
    fn a_key_that_flaps_for_five_minutes_is_told_of_a_few_times() {
        let mut telling = Telling::default();
        let told = (0..300_u64).filter(|second| {
            telling.tell(ANSWERS[*second as usize % 2], second * SECOND).is_news()
        });
        assert!((6..=11).contains(&told.count()));
    }

    #[test]
    fn what_it_came_to_is_told_in_the_end() {
        let mut telling = Telling::default();
        let mut last = None;
        for number in 0..99 {
            let change = telling.tell(ANSWERS[number % 2], number as u64);
            last = if change.is_news() { change.to } else { last };
        }
        // The 99th said no, and nobody was told.
        assert_eq!(last, Some(KeyState::Usable));
        assert_eq!(telling.tell(ANSWERS[0], 59 * SECOND), Change::NONE);
        let change = telling.tell(ANSWERS[0], 61 * SECOND);
        assert_eq!((change.from, change.to), (Some(KeyState::Usable), Some(KeyState::Revoked)));
        assert_eq!(telling.tell(ANSWERS[0], 999 * SECOND), Change::NONE);
    }

    #[test]
    fn that_a_key_works_at_first_counts_for_nothing() {
        let mut telling = Telling::default();
        assert_eq!(telling.tell(ANSWERS[1], 0).to, Some(KeyState::Usable));
        let told = (0..6).filter(|number| telling.tell(ANSWERS[*number % 2], 0).is_news());
        assert_eq!(told.count(), 6);
    }
}
