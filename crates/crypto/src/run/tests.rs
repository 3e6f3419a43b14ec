use super::*;
use crate::aead::MessageKey;
use crate::key::SecretKey;
use crate::locked::Locked;
use crate::locked::tests::alone;
use std::collections::HashSet;

const ID: usize = 0x1000;

fn at(now: u64) -> Moment {
    Moment { pid: 1, now, statement: 7 }
}

fn draw(state: &mut State, moment: Moment) -> ([u8; NONCE_LEN], bool) {
    draw_for(state, ID, moment)
}

fn draw_for(state: &mut State, id: usize, moment: Moment) -> ([u8; NONCE_LEN], bool) {
    let mut nonce = [0; NONCE_LEN];
    let goes_on = state.draw(id, moment, &mut nonce).unwrap();
    (nonce, goes_on)
}

fn seal(by: impl Seals, plaintext: &[u8], sealed: &mut [u8]) -> ([u8; NONCE_LEN], [u8; TAG_LEN]) {
    let (mut nonce, mut tag) = ([0; NONCE_LEN], [0; TAG_LEN]);
    let room = Room { nonce: &mut nonce, ciphertext: sealed, tag: &mut tag };
    by.seal(b"aad", plaintext, room).unwrap();
    (nonce, tag)
}

/// What a snapshot of the machine has, in which one run goes on.
fn copy_of(state: &State) -> State {
    State { runs: state.runs, next_run: state.next_run, ..State::new() }
}

fn cipher() -> (Cipher, Locked<Cipher>) {
    let key = SecretKey::generate().unwrap();
    (Cipher::new(&key), Locked::new(Cipher::new(&key), u64::MAX, 0))
}

#[test]
fn no_nonce_of_a_run_is_another_and_all_begin_alike() {
    let mut state = State::new();
    // The time stands still, or jumps about: it makes no difference.
    for now in [|_| 7, |i: u64| i ^ (i << 9), |i: u64| u64::MAX / (i + 1)] {
        let mut state = State::new();
        let drawn: Vec<_> =
            (0..u64::from(VALUES)).map(|i| state.runs_next(now(i)).unwrap()).collect();
        assert!(drawn.iter().all(|nonce| nonce[..PREFIX_LEN] == drawn[0][..PREFIX_LEN]));
        assert_eq!(drawn.iter().collect::<HashSet<_>>().len(), VALUES as usize);
        assert_eq!(state.runs_next(now(1)), None);
    }
    let drawn: Vec<_> = (0..=VALUES).map(|_| draw(&mut state, at(1000))).collect();
    let (first, last) = (drawn[0], drawn[VALUES as usize]);
    assert!(!first.1 && drawn[1..VALUES as usize].iter().all(|(_, goes_on)| *goes_on));
    assert!(!last.1 && last.0[..PREFIX_LEN] != first.0[..PREFIX_LEN]);
}

impl State {
    /// The next nonce of one endless run, whatever the time.
    fn runs_next(&mut self, now: u64) -> Option<[u8; NONCE_LEN]> {
        let run = &mut self.runs[0];
        if run.id == 0 {
            *run = Run { id: ID, began: at(now), first: [0xFE; NONCE_LEN], values: 0 };
        }
        run.began.now = now;
        let mut nonce = [0; NONCE_LEN];
        run.next(at(now), &mut nonce).then_some(nonce)
    }
}

#[test]
fn a_run_ends_with_its_statement_its_process_and_its_second() {
    for (moment, goes_on) in [
        (at(1000), true),
        (at(1000 + LIFE), true),
        (at(1001 + LIFE), false),
        // The clock went back.
        (at(999), false),
        (Moment { statement: 8, ..at(1000) }, false),
        (Moment { statement: 6, ..at(1000) }, false),
        (Moment { pid: 2, ..at(1000) }, false),
    ] {
        let mut state = State::new();
        let (first, begins) = draw(&mut state, at(1000));
        assert!(!begins);
        let (next, goes) = draw(&mut state, moment);
        assert_eq!(goes, goes_on, "{moment:?}");
        assert_eq!(first[..PREFIX_LEN] == next[..PREFIX_LEN], goes_on, "{moment:?}");
        // The next one, in the same statement, goes on with whatever was last.
        assert!(draw(&mut state, moment).1, "{moment:?}");
    }
}

#[test]
fn statements_of_one_value_have_nothing_in_common() {
    let mut state = State::new();
    let drawn = (0..1000).map(|statement| draw(&mut state, Moment { statement, ..at(1000) }));
    let prefixes: HashSet<_> =
        drawn.map(|(nonce, goes_on)| (halves(&nonce).0.to_owned(), goes_on)).collect();
    assert_eq!(prefixes.len(), 1000);
    assert!(prefixes.iter().all(|(_, goes_on)| !goes_on));
}

#[test]
fn a_copied_run_repeats_only_in_the_same_nanosecond() {
    let mut original = State::new();
    draw(&mut original, at(1000));
    for (now, copy_now, same) in [(1001, 1001, true), (1002, 1003, false), (1004, 1004, true)] {
        let mut copy = copy_of(&original);
        let (one, goes_on) = draw(&mut original, at(now));
        let (other, copy_goes_on) = draw(&mut copy, at(copy_now));
        assert!(goes_on && copy_goes_on);
        assert_eq!(one[..PREFIX_LEN], other[..PREFIX_LEN]);
        assert_eq!(one == other, same, "{now} {copy_now}");
    }
    // Nor is a nonce of the one at any other place of the other, whatever the time.
    let mut copy = copy_of(&original);
    let ones: HashSet<_> = (0..100).map(|_| draw(&mut original, at(2000)).0).collect();
    assert!((0..100).all(|_| !ones.contains(&draw(&mut copy, at(2001)).0)));
    // After its second each has one of its own.
    let after = at(1001 + LIFE);
    let mut copy = copy_of(&original);
    let (one, other) = (draw(&mut original, after).0, draw(&mut copy, after).0);
    assert_ne!(one[..PREFIX_LEN], other[..PREFIX_LEN]);
}

#[test]
fn as_many_data_keys_as_there_are_runs_have_one_each() {
    for (keys, goes_on) in [(RUNS, true), (RUNS + 1, false)] {
        let mut state = State::new();
        let rounds = |state: &mut State| {
            let round = (1..=keys).map(|key| draw_for(state, key * 1024, at(1000)));
            round.collect::<Vec<_>>()
        };
        let (first, second) = (rounds(&mut state), rounds(&mut state));
        assert!(first.iter().all(|(_, goes_on)| !goes_on));
        assert!(second.iter().all(|(_, goes)| *goes == goes_on), "{keys}");
        let prefixes: HashSet<_> = first.iter().map(|(nonce, _)| halves(nonce).0).collect();
        assert_eq!(prefixes.len(), keys);
    }
}

#[test]
fn what_a_run_sealed_opens_without_one_and_the_other_way_round() {
    let _alone = alone();
    let (plain, locked) = cipher();
    let mut pinned = locked.pin().unwrap();
    let mut nonces = NonceSource::new();
    for length in [0, 1, 15, 16, 17, 64, 1000, SHORT - 1, SHORT, SHORT + 1, 5000] {
        let plaintext = vec![length as u8; length];
        let mut prefixes = HashSet::new();
        for round in 0..4 {
            let (mut sealed, mut opened) = (vec![0; length], vec![0; length]);
            let in_runs = InRuns { cipher: &mut pinned, moment: at(1000) };
            let (nonce, tag) = seal(in_runs, &plaintext, &mut sealed);
            prefixes.insert(halves(&nonce).0.to_owned());
            plain.open(&nonce, b"aad", &sealed, &tag, &mut opened).unwrap();
            assert_eq!(opened, plaintext, "{length} bytes, {round}");
            let opened_too = (&mut pinned).open(&nonce, b"aad", &sealed, &tag, &mut opened);
            assert!(opened_too.is_ok(), "{length} bytes, {round}");
            let mut bad = tag;
            bad[round] ^= 1;
            let refused = (&mut pinned).open(&nonce, b"aad", &sealed, &bad, &mut opened);
            assert!(refused.is_err(), "{length} bytes, {round}");

            let fresh = Fresh { cipher: &plain, nonces: &mut nonces, moment: at(1000) };
            let (nonce, tag) = seal(fresh, &plaintext, &mut sealed);
            for _ in 0..3 {
                opened.fill(0);
                (&mut pinned).open(&nonce, b"aad", &sealed, &tag, &mut opened).unwrap();
                assert_eq!(opened, plaintext, "{length} bytes, {round}");
            }
        }
        // The first of these lengths began the run.
        assert_eq!(prefixes.len(), if length < SHORT { 1 } else { 4 }, "{length} bytes");
    }
}

#[test]
fn opening_keeps_the_key_of_a_prefix_that_comes_again() {
    let _alone = alone();
    let (plain, locked) = cipher();
    let mut pinned = locked.pin().unwrap();
    let is_kept = |pinned: &mut Pinned<Cipher>, prefix: u8| {
        find_or_derive(pinned, &[prefix; PREFIX_LEN], |_| false).is_some()
    };
    let open = |pinned: &mut Pinned<Cipher>, prefix: u8| {
        let nonce = [prefix; NONCE_LEN];
        let tag = plain.seal(&nonce, b"", b"", &mut []).unwrap();
        pinned.open(&nonce, b"", b"", &tag, &mut []).unwrap();
    };
    open(&mut pinned, 1);
    assert!(!is_kept(&mut pinned, 1));
    open(&mut pinned, 1);
    assert!(is_kept(&mut pinned, 1));
    // Those that come once are not kept, and don't drive out what is.
    (2..200).for_each(|prefix| open(&mut pinned, prefix));
    assert!(is_kept(&mut pinned, 1) && !(2..200).any(|prefix| is_kept(&mut pinned, prefix)));
}

/// The bytes of the stack below this function's frame, as they were when it was called.
#[inline(never)]
pub(crate) fn dead_stack(copy: &mut Vec<u8>) {
    let here = 0_u8;
    let top = (&raw const here) as usize;
    for at in top - copy.capacity()..top {
        // SAFETY: the thread's stack, which is mapped; what it holds is plain bytes to the
        // processor.
        copy.push(unsafe { (at as *const u8).read_volatile() });
    }
}

#[test]
#[cfg_attr(miri, ignore = "reads the dead part of the stack")]
fn nothing_of_a_message_key_is_left_on_the_stack() {
    let _alone = alone();
    let (plain, locked) = cipher();
    let mut pinned = locked.pin().unwrap();
    let (mut sealed, mut opened) = ([0; 64], [0; 64]);
    let mut stacks = [(); 8].map(|()| Vec::with_capacity(16 * 1024));
    let (mut prefix, mut seen) = ([0; PREFIX_LEN], stacks.iter_mut());
    // A value alone, and those of a run.
    for _ in 0..4 {
        let in_runs = InRuns { cipher: &mut pinned, moment: at(1000) };
        let (nonce, tag) = seal(in_runs, &[7; 64], &mut sealed);
        dead_stack(seen.next().unwrap());
        (&mut pinned).open(&nonce, b"aad", &sealed, &tag, &mut opened).unwrap();
        dead_stack(seen.next().unwrap());
        prefix = *halves(&nonce).0;
    }
    let key = plain.message_key(&prefix);
    // SAFETY: plain numbers; as many bytes as it has.
    let bytes: &[u8; size_of::<MessageKey>()] = unsafe { &*(&raw const key).cast() };
    // The round keys and the powers of what GCM hashes by; nobody writes what lies between.
    let parts = [&bytes[..15 * 16], &bytes[15 * 64..][..8 * 16]];
    let words = parts.iter().flat_map(|part| part.chunks(8));
    let words: HashSet<_> =
        words.filter(|word| word.iter().filter(|byte| **byte == 0).count() < 3).collect();
    assert!(words.len() > 40, "the test looks for nothing");
    for (number, stack) in stacks.iter().enumerate() {
        let left = stack.windows(8).filter(|bytes| words.contains(bytes)).count();
        assert_eq!(left, 0, "after call {number}");
    }
}
