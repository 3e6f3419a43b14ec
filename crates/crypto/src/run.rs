//! Runs: values that one statement seals under nonces with a common beginning, so that the message
//! key that XAES-256-GCM derives from it serves all of them.
//!
//! ```text
//! first value of a statement   nonce = prefix[12] ‖ a[8] ‖ b[4]      a draw as any other
//! its i-th value after that    nonce = prefix ‖ a ⊕ now ‖ b + i      i = 1 … 255
//! ```
//!
//! `now` is the time in nanoseconds, and b + i wraps. A run has one cipher and one process, and
//! ends with its statement, when it is a second old, or after 256 values. So a statement that
//! seals one value has none: its nonce is a draw, and tells nothing. `docs/envelope.md` has the
//! argument with numbers, and what a reader of ciphertext learns.
//!
//! **No two nonces are the same.** Within a run b + i differs. Of two runs the draws are
//! independent, and each nonce for itself is as random as its draw: any two of their values have
//! the same one with a chance of 2^-192, as if each value had a draw of its own.
//!
//! **A machine that is resumed twice** from one snapshot goes on with every run twice, as it does
//! with every block of draws. Its copies have the same nonce only for the same i, at the same tick
//! of a clock that both took along, within one second: that is why the time is in it, and why a run
//! lives no longer than a block ([`nonce`](super::nonce)) and has no more values than that has
//! draws. Deriving a message key for each 256 values costs next to nothing, and no more than those
//! are lost with it.
//!
//! Opening goes by prefix: the second value in a row of them that begins alike has its message key
//! kept, so that values that were sealed together open together, and others pay nothing.

use super::aead::{Cipher, TAG_LEN, halves};
use super::derived::{beginning, find_or_derive};
use super::locked::{Pinned, WhilePinned};
use super::nonce::{LIFE, Moment, NONCE_LEN, NonceSource, PREFIX_LEN};
use super::scrub::overwrite_stack;
use cmk_error::{Error, Result};

/// Values of a run.
const VALUES: u32 = 256;
/// Runs that go on at a time: those of the data keys used last.
const RUNS: usize = 8;
/// Prefixes of opened values that are remembered.
const SEEN: usize = 8;

/// Values from this length on take a message key of their own: deriving it costs less than is worth
/// keeping, and a message key that serves many encrypts 64 MiB at most.
const SHORT: usize = 1024;

/// Bytes of the stack where GCM leaves copies of what it hashes by: 600, in an optimised build.
const OF_A_KEY_AT_HAND: usize = if cfg!(debug_assertions) { 16 * 1024 } else { 1024 };
/// The same where a message key was derived, which leaves copies too: 2,130.
const OF_ALL: usize = if cfg!(debug_assertions) { 16 * 1024 } else { 3 * 1024 };

/// Where what is sealed goes: each part where it stays, since copies of what was just written in
/// parts cost a processor more than writing it.
pub struct Room<'a> {
    /// For the nonce.
    pub nonce: &'a mut [u8; NONCE_LEN],
    /// For the ciphertext, as long as the plaintext.
    pub ciphertext: &'a mut [u8],
    /// For the tag.
    pub tag: &'a mut [u8; TAG_LEN],
}

/// Seals under nonces that it draws.
pub trait Seals {
    /// Writes nonce, ciphertext of `plaintext`, and tag.
    ///
    /// # Errors
    /// `system_random`; as [`Cipher::seal`].
    fn seal(self, aad: &[u8], plaintext: &[u8], room: Room<'_>) -> Result<()>;
}

/// Opens what was sealed, whatever its nonce.
pub trait Opens {
    /// As [`Cipher::open`].
    ///
    /// # Errors
    /// As [`Cipher::open`].
    fn open(
        self,
        nonce: &[u8; NONCE_LEN],
        aad: &[u8],
        ciphertext: &[u8],
        tag: &[u8; TAG_LEN],
        out: &mut [u8],
    ) -> Result<()>;
}

/// Draws a nonce for each value.
pub struct Fresh<'a> {
    /// What seals.
    pub cipher: &'a Cipher,
    /// Where nonces come from.
    pub nonces: &'a mut NonceSource,
    /// Who draws, and when.
    pub moment: Moment,
}

impl Seals for Fresh<'_> {
    #[inline]
    fn seal(self, aad: &[u8], plaintext: &[u8], room: Room<'_>) -> Result<()> {
        *room.nonce = self.nonces.draw(self.moment)?;
        let sealed = self.cipher.seal_into(room.nonce, aad, plaintext, room.ciphertext, room.tag);
        sealed.map_err(Error::from)
    }
}

impl Opens for &Cipher {
    #[inline]
    fn open(
        self,
        nonce: &[u8; NONCE_LEN],
        aad: &[u8],
        ciphertext: &[u8],
        tag: &[u8; TAG_LEN],
        out: &mut [u8],
    ) -> Result<()> {
        Cipher::open(self, nonce, aad, ciphertext, tag, out)
    }
}

/// Seals in runs.
pub struct InRuns<'a> {
    /// What seals.
    pub cipher: &'a mut Pinned<Cipher>,
    /// Who seals, when, and in which statement.
    pub moment: Moment,
}

impl Seals for InRuns<'_> {
    #[inline]
    fn seal(self, aad: &[u8], plaintext: &[u8], room: Room<'_>) -> Result<()> {
        let Self { cipher, moment } = self;
        let Room { nonce, ciphertext, tag } = room;
        let id = cipher.id();
        let (_, state) = cipher.with(&STATE);
        let goes_on = match plaintext.len() < SHORT {
            true => state.draw(id, moment, nonce)?,
            false => {
                *nonce = state.nonces.draw(moment)?;
                false
            }
        };
        if goes_on && let Some(key) = find_or_derive(cipher, halves(nonce).0, |_| true) {
            let sealed = key.seal_into(nonce, aad, plaintext, ciphertext, tag);
            overwrite_stack::<OF_A_KEY_AT_HAND>();
            return sealed.map_err(Error::from);
        }
        let sealed = cipher.seal_into(nonce, aad, plaintext, ciphertext, tag);
        overwrite_stack::<OF_ALL>();
        sealed.map_err(Error::from)
    }
}

impl Opens for &mut Pinned<Cipher> {
    #[inline]
    fn open(
        self,
        nonce: &[u8; NONCE_LEN],
        aad: &[u8],
        ciphertext: &[u8],
        tag: &[u8; TAG_LEN],
        out: &mut [u8],
    ) -> Result<()> {
        let prefix = halves(nonce).0;
        let is_seen_again = |cipher: &mut Pinned<Cipher>| {
            let id = cipher.id();
            cipher.with(&STATE).1.is_seen_again(id, prefix)
        };
        if ciphertext.len() < SHORT
            && let Some(key) = find_or_derive(self, prefix, is_seen_again)
        {
            let opened = key.open_into(nonce, aad, ciphertext, tag, out);
            overwrite_stack::<OF_A_KEY_AT_HAND>();
            return opened.map_err(Error::from);
        }
        let opened = self.open_into(nonce, aad, ciphertext, tag, out);
        overwrite_stack::<OF_ALL>();
        opened.map_err(Error::from)
    }
}

/// What a process remembers, while it has a cipher pinned.
static STATE: WhilePinned<State> = WhilePinned::new(State::new());

struct State {
    nonces: NonceSource,
    runs: [Run; RUNS],
    /// Whose place the next run takes.
    next_run: usize,
    /// Beginnings of those that were opened last. That two begin alike by chance costs a place.
    seen: [u64; SEEN],
    next_seen: usize,
}

#[derive(Clone, Copy)]
struct Run {
    /// Of the cipher, as [`Pinned::id`]; 0: none.
    id: usize,
    began: Moment,
    first: [u8; NONCE_LEN],
    values: u32,
}

impl State {
    const fn new() -> Self {
        let began = Moment { pid: 0, now: 0, statement: 0 };
        let none = Run { id: 0, began, first: [0; NONCE_LEN], values: 0 };
        Self {
            nonces: NonceSource::new(),
            runs: [none; RUNS],
            next_run: 0,
            seen: [0; SEEN],
            next_seen: 0,
        }
    }

    /// Writes a nonce; whether it goes on with a run.
    #[inline]
    fn draw(&mut self, id: usize, moment: Moment, nonce: &mut [u8; NONCE_LEN]) -> Result<bool> {
        let at = self.runs.iter().position(|run| run.id == id);
        if let Some(at) = at
            && self.runs[at].next(moment, nonce)
        {
            return Ok(true);
        }
        let first = self.nonces.draw(moment)?;
        let at = at.unwrap_or_else(|| {
            let at = self.next_run;
            self.next_run = (at + 1) % RUNS;
            at
        });
        self.runs[at] = Run { id, began: moment, first, values: 1 };
        *nonce = first;
        Ok(false)
    }

    /// Whether a value with that prefix was opened lately. From now on one was.
    fn is_seen_again(&mut self, id: usize, prefix: &[u8; PREFIX_LEN]) -> bool {
        let beginning = beginning(prefix) ^ id as u64;
        let again = self.seen.iter().fold(false, |again, seen| again | (*seen == beginning));
        if !again {
            self.seen[self.next_seen] = beginning;
            self.next_seen = (self.next_seen + 1) % SEEN;
        }
        again
    }
}

impl Run {
    /// Writes the next nonce. False if the run is over.
    #[inline]
    fn next(&mut self, moment: Moment, nonce: &mut [u8; NONCE_LEN]) -> bool {
        let Moment { pid, now, statement } = self.began;
        // A clock that went back makes the age large.
        let age = moment.now.wrapping_sub(now);
        if moment.statement != statement || moment.pid != pid || age > LIFE || self.values == VALUES
        {
            return false;
        }
        let (prefix, rest) = self.first.split_at(PREFIX_LEN);
        let (a, b) = rest.split_at(8);
        let a = u64::from_ne_bytes(a.try_into().expect("8 of 24 bytes")) ^ moment.now;
        let b = u32::from_be_bytes(b.try_into().expect("4 of 24 bytes"));
        nonce[..PREFIX_LEN].copy_from_slice(prefix);
        nonce[PREFIX_LEN..PREFIX_LEN + 8].copy_from_slice(&a.to_ne_bytes());
        nonce[PREFIX_LEN + 8..].copy_from_slice(&b.wrapping_add(self.values).to_be_bytes());
        self.values += 1;
        true
    }
}

#[cfg(test)]
pub(crate) mod tests;
