//! Random nonces, expanded a block at a time from a seed of the operating system.
//!
//! ```text
//! block = AES-256-CTR(key = 32 fresh bytes of getrandom, counter = 0) as 256 draws of 24 bytes
//! nonce = draw ⊕ (now in nanoseconds, in the first 8 bytes)
//! ```
//!
//! A call of the kernel per value costs more than sealing a short value, and its bulk output still
//! costs a third as much; hence one seed per block, used once and forgotten (NIST SP 800-90A's CTR
//! construction without its state). A block belongs to one process: [`NonceSource`] compares the
//! process id before it hands anything out, so that two backends forked from one preloaded parent
//! never share a nonce.
//!
//! A virtual machine that is resumed twice from one snapshot has every block twice. So a block is
//! thrown away when it is a second old, and the time goes into each nonce, which leaves it as
//! random as it was. Two copies then draw the same nonce only at the same place of the same block,
//! at the same tick of a clock that both took along. Blocks stay the same for one second; for
//! longer only where the guest's kernel isn't told of the resume (Linux before 5.18, or without
//! VMGENID), because then its next seeds may be the same too.

use aes::Aes256Enc;
use cmk_error::{Instant, Reason, Result};
use ctr::Ctr128BE;
use ctr::cipher::{KeyIvInit, StreamCipher};
use zeroize::Zeroizing;

/// Bytes of a nonce.
pub const NONCE_LEN: usize = 24;

/// Bytes at the beginning of a nonce that XAES-256-GCM derives a message key from.
pub const PREFIX_LEN: usize = 12;

/// Nonces in a block.
const BLOCK: usize = 256;

/// Longest time that what was drawn is used, in nanoseconds.
pub(crate) const LIFE: u64 = 1_000_000_000;

/// Who draws a nonce, when, and for what.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// The caller's process id, which PostgreSQL keeps at hand.
    pub pid: u32,
    /// Now.
    pub now: Instant,
    /// A number that differs from statement to statement of the process: [runs](super::run) end
    /// with it.
    pub statement: u64,
}

/// A process's unused nonces.
pub struct NonceSource {
    block: [u8; BLOCK * NONCE_LEN],
    /// Offset of the next unused nonce; the end means empty.
    next: usize,
    /// Who filled the block, and when.
    filled: Moment,
}

impl NonceSource {
    /// Empty.
    pub const fn new() -> Self {
        let filled = Moment { pid: 0, now: 0, statement: 0 };
        Self { block: [0; BLOCK * NONCE_LEN], next: BLOCK * NONCE_LEN, filled }
    }

    /// A fresh 192-bit nonce; zeroed in the block, so that it can't be handed out twice.
    ///
    /// # Errors
    /// `system_random` if the operating system fails.
    #[inline]
    pub fn draw(&mut self, moment: Moment) -> Result<[u8; NONCE_LEN]> {
        // A clock that went back makes the age large.
        let age = moment.now.wrapping_sub(self.filled.now);
        if self.next == self.block.len() || self.filled.pid != moment.pid || age > LIFE {
            self.refill(moment)?;
        }
        let mut nonce = [0; NONCE_LEN];
        let unused = &mut self.block[self.next..self.next + NONCE_LEN];
        nonce.copy_from_slice(unused);
        unused.fill(0);
        self.next += NONCE_LEN;
        nonce.iter_mut().zip(moment.now.to_ne_bytes()).for_each(|(byte, now)| *byte ^= now);
        Ok(nonce)
    }

    #[cold]
    fn refill(&mut self, moment: Moment) -> Result<()> {
        // Empty until the block is whole: a failed fill must not leave old nonces behind.
        self.next = self.block.len();
        let mut seed = Zeroizing::new([0; 32]);
        getrandom::fill(seed.as_mut_slice()).map_err(|_| Reason::SystemRandom)?;
        self.block.fill(0);
        Ctr128BE::<Aes256Enc>::new((&*seed).into(), &[0; 16].into())
            .apply_keystream(&mut self.block);
        self.next = 0;
        self.filled = moment;
        Ok(())
    }
}

impl Default for NonceSource {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    fn at(pid: u32, now: Instant) -> Moment {
        Moment { pid, now, statement: 0 }
    }

    /// What a snapshot of the machine has.
    fn copy_of(source: &NonceSource) -> NonceSource {
        NonceSource { block: source.block, next: source.next, filled: source.filled }
    }

    #[test]
    fn never_repeats_across_blocks() {
        let mut source = NonceSource::new();
        let drawn: HashSet<_> = (0..BLOCK * 3).map(|_| source.draw(at(1, 7)).unwrap()).collect();
        assert_eq!(drawn.len(), BLOCK * 3);
    }

    #[test]
    fn another_process_starts_a_block_of_its_own() {
        let mut parent = NonceSource::new();
        parent.draw(at(1, 7)).unwrap();
        let mut child = copy_of(&parent);
        assert_ne!(parent.draw(at(1, 7)).unwrap(), child.draw(at(2, 7)).unwrap());
    }

    #[test]
    fn a_copied_block_repeats_only_in_the_same_nanosecond_of_its_first_second() {
        let mut original = NonceSource::new();
        original.draw(at(1, 1000)).unwrap();
        for (now, copy_now, same) in [
            (1001, 1001, true),
            (1002, 1003, false),
            (1000 + LIFE, 1000 + LIFE, true),
            (1001 + LIFE, 1001 + LIFE, false),
        ] {
            let mut copy = copy_of(&original);
            let (one, other) =
                (original.draw(at(1, now)).unwrap(), copy.draw(at(1, copy_now)).unwrap());
            assert_eq!(one == other, same, "{now} {copy_now}");
        }
    }

    #[test]
    fn a_clock_that_went_back_starts_a_new_block() {
        let mut original = NonceSource::new();
        original.draw(at(1, 1000)).unwrap();
        let mut copy = copy_of(&original);
        assert_ne!(original.draw(at(1, 999)).unwrap(), copy.draw(at(1, 999)).unwrap());
    }

    #[test]
    fn the_time_goes_into_a_nonce_and_takes_nothing_of_its_randomness() {
        let mut source = NonceSource::new();
        for now in 1000..1100 {
            let mut copy = copy_of(&source);
            let later = now ^ 0x1FFF_FFFF;
            let (one, other) = (source.draw(at(1, now)).unwrap(), copy.draw(at(1, later)).unwrap());
            if now == 1000 {
                // Each of them filled a block of its own.
                continue;
            }
            let mixed: Vec<_> = one.iter().zip(other).map(|(one, other)| one ^ other).collect();
            assert_eq!(mixed[..8], 0x1FFF_FFFF_u64.to_ne_bytes());
            assert_eq!(mixed[8..], [0; NONCE_LEN - 8]);
        }
    }

    #[test]
    fn a_nonce_is_gone_from_the_block_when_it_is_handed_out() {
        let mut source = NonceSource::new();
        for number in 1..=BLOCK {
            source.draw(at(1, 7)).unwrap();
            assert!(source.block[..number * NONCE_LEN].iter().all(|byte| *byte == 0));
        }
    }
}
