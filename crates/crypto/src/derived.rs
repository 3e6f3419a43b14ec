//! The last few message keys of this process, expanded: each serves many messages of one cipher,
//! lies in one of the [places](super::places) of the locked pages, and dies with the cipher that it
//! was derived from.

use super::aead::{Cipher, MessageKey};
use super::locked::{Erasable, Pinned, WhilePinned};
use super::nonce::PREFIX_LEN;
use super::places::{BUSY, CONTENT, NOBODY, PLACES, Place, erase, owner_of, place};
use super::scrub::{overwrite_registers, overwrite_stack};
use std::ptr::NonNull;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};

/// What is where. An entry may be stale: the place knows better.
struct Index {
    keys: [(usize, [u8; PREFIX_LEN]); PLACES],
    /// Of the prefixes, which are looked at first.
    beginnings: [u64; PLACES],
    /// Where a key was found last.
    last: usize,
    /// Which place is filled next.
    next: usize,
}

static INDEX: WhilePinned<Index> = WhilePinned::new(Index {
    keys: [(NOBODY, [0; PREFIX_LEN]); PLACES],
    beginnings: [0; PLACES],
    last: 0,
    next: 0,
});

/// What nearly always tells prefixes apart, in one comparison.
#[inline]
pub(crate) fn beginning(prefix: &[u8; PREFIX_LEN]) -> u64 {
    u64::from_ne_bytes(*prefix.first_chunk().expect("8 of 12 bytes"))
}

/// The key that a cipher derives for a prefix, from its place. `None` if it isn't at hand and
/// nobody wants it kept, or if the place for it is being erased this very moment.
#[inline]
pub(crate) fn find_or_derive<'a>(
    cipher: &'a mut Pinned<Cipher>,
    prefix: &[u8; PREFIX_LEN],
    keep: impl FnOnce(&mut Pinned<Cipher>) -> bool,
) -> Option<&'a MessageKey> {
    let place = match find(cipher, prefix) {
        Some(place) => place,
        None if keep(cipher) => derive(cipher, prefix)?,
        None => return None,
    };
    // SAFETY: a place of this cipher holds a key. The cipher is pinned for `'a`, so nobody erases
    // it, and exclusively borrowed, so nobody fills the place with another.
    Some(unsafe { place.cast().as_ref() })
}

/// The place of a key that is at hand.
#[inline]
fn find(cipher: &mut Pinned<Cipher>, prefix: &[u8; PREFIX_LEN]) -> Option<NonNull<Place>> {
    let owner = cipher.id();
    let (_, index) = cipher.with(&INDEX);
    let wanted = (owner, *prefix);
    let keys = &index.keys;
    let held = |number: usize| {
        let place = if keys[number] == wanted { place(number) } else { None };
        place.filter(|place| owner_of(*place).load(SeqCst) == owner)
    };
    if let Some(place) = held(index.last) {
        return Some(place);
    }
    let beginning = beginning(prefix);
    if index.beginnings.iter().fold(true, |none, other| none & (*other != beginning)) {
        return None;
    }
    let (number, place) = (0..PLACES).find_map(|number| Some((number, held(number)?)))?;
    index.last = number;
    Some(place)
}

/// Derives a key into the place that was filled longest ago.
#[cold]
#[inline(never)]
fn derive(cipher: &mut Pinned<Cipher>, prefix: &[u8; PREFIX_LEN]) -> Option<NonNull<Place>> {
    const {
        assert!(size_of::<MessageKey>() <= CONTENT);
        assert!(align_of::<MessageKey>() <= align_of::<Place>());
    }
    let owner = cipher.id();
    let (cipher, index) = cipher.with(&INDEX);
    let number = index.next;
    let place = place(number)?;
    if !erase(place, owner_of(place).load(Relaxed), BUSY) {
        return None;
    }
    fill(place, cipher, prefix);
    // What moved the key to its place may have left a copy.
    overwrite_registers();
    overwrite_stack::<8192>();
    owner_of(place).store(owner, SeqCst);
    index.keys[number] = (owner, *prefix);
    index.beginnings[number] = beginning(prefix);
    index.last = number;
    index.next = (number + 1) % PLACES;
    Some(place)
}

#[inline(never)]
fn fill(place: NonNull<Place>, cipher: &Cipher, prefix: &[u8; PREFIX_LEN]) {
    // SAFETY: nobody else's while it is busy; large enough and aligned.
    unsafe { place.cast().write(cipher.message_key(prefix)) };
}

// SAFETY: a key schedule and powers of a number, without pointers; dropping them zeroes them.
unsafe impl Erasable for MessageKey {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::SecretKey;
    use crate::locked::tests::alone;
    use crate::locked::{Locked, erase_overdue};

    const NEVER: u64 = u64::MAX;

    fn cipher(deadline: u64) -> Locked<Cipher> {
        Locked::new(Cipher::new(&SecretKey::generate().unwrap()), deadline, 0)
    }

    /// The bytes of a key that is kept, and where it lies.
    fn kept(cipher: &Locked<Cipher>, prefix: u8) -> (NonNull<Place>, [u8; CONTENT]) {
        let mut pinned = cipher.pin().unwrap();
        assert!(find_or_derive(&mut pinned, &[prefix; PREFIX_LEN], |_| true).is_some());
        let place = find(&mut pinned, &[prefix; PREFIX_LEN]).unwrap();
        (place, content(place))
    }

    fn content(place: NonNull<Place>) -> [u8; CONTENT] {
        // SAFETY: mapped for good, and all tests of this file take turns.
        unsafe { place.cast().read() }
    }

    fn is_kept(cipher: &Locked<Cipher>, prefix: u8) -> bool {
        let mut pinned = cipher.pin().unwrap();
        find_or_derive(&mut pinned, &[prefix; PREFIX_LEN], |_| false).is_some()
    }

    #[test]
    fn a_key_is_kept_only_if_somebody_wants_it() {
        let _alone = alone();
        let cipher = cipher(NEVER);
        assert!(!is_kept(&cipher, 1));
        let (place, content) = kept(&cipher, 1);
        assert!(is_kept(&cipher, 1) && !is_kept(&cipher, 2));
        assert!(content != [0; CONTENT] && owner_of(place).load(SeqCst) > BUSY);
    }

    #[test]
    fn what_was_derived_dies_with_a_dropped_cipher() {
        let _alone = alone();
        let (dropped, other) = (cipher(NEVER), cipher(NEVER));
        let places = [1, 2].map(|prefix| kept(&dropped, prefix).0);
        let (others, others_content) = kept(&other, 1);
        drop(dropped);
        for place in places {
            assert_eq!(content(place), [0; CONTENT]);
            assert_eq!(owner_of(place).load(SeqCst), NOBODY);
        }
        assert_eq!(content(others), others_content);
        assert!(is_kept(&other, 1));
    }

    #[test]
    fn what_was_derived_dies_with_an_overdue_cipher_unless_that_is_in_use() {
        let _alone = alone();
        let (overdue, later) = (cipher(10), cipher(1000));
        let (place, before) = kept(&overdue, 1);
        let (later_place, later_before) = kept(&later, 1);
        let mut pinned = overdue.pin().unwrap();
        assert_eq!(erase_overdue(10), Some(10));
        assert!(find(&mut pinned, &[1; PREFIX_LEN]).is_some());
        assert_eq!(content(place), before);
        drop(pinned);
        assert_eq!(erase_overdue(10), Some(1000));
        assert_eq!(content(place), [0; CONTENT]);
        assert!(overdue.pin().is_none());
        assert_eq!(content(later_place), later_before);
    }

    #[test]
    fn a_place_that_is_being_filled_is_nobody_elses() {
        let _alone = alone();
        let (filling, overdue) = (cipher(NEVER), cipher(10));
        let (place, _) = kept(&overdue, 1);
        let owner = owner_of(place).load(SeqCst);
        // As `derive` does, when a signal handler comes in the middle.
        assert!(erase(place, owner, BUSY));
        assert_eq!(content(place), [0; CONTENT]);
        erase_overdue(10);
        assert_eq!(owner_of(place).load(SeqCst), BUSY);
        assert!(!erase(place, BUSY, NOBODY) && !erase(place, owner, NOBODY));
        owner_of(place).store(NOBODY, SeqCst);
        drop(filling);
    }

    #[test]
    fn the_key_that_was_kept_longest_makes_room() {
        let _alone = alone();
        let cipher = cipher(NEVER);
        let (first, bytes) = kept(&cipher, 0);
        for prefix in 1..=PLACES as u8 {
            assert!(is_kept(&cipher, 0), "before {prefix}");
            kept(&cipher, prefix);
        }
        assert!(!is_kept(&cipher, 0));
        assert!((1..=PLACES as u8).all(|prefix| is_kept(&cipher, prefix)));
        assert_ne!(content(first), bytes);
    }

    #[test]
    fn a_cipher_in_the_place_of_another_never_meets_its_keys() {
        let _alone = alone();
        for _ in 0..3 * PLACES {
            let cipher = cipher(NEVER);
            assert!(!is_kept(&cipher, 1));
            kept(&cipher, 1);
            // However often it was kept for one at this address before, it is found.
            assert!(is_kept(&cipher, 1));
        }
    }
}
