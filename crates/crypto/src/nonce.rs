//! Random nonces, expanded a block at a time from a seed of the operating system.
//!
//! ```text
//! block = AES-256-CTR(key = 32 fresh bytes of getrandom, counter = 0) as 256 nonces of 24 bytes
//! ```
//!
//! A call of the kernel per value costs more than sealing a short value, and its bulk output still costs
//! a third as much; hence a seed a block, used once and forgotten (NIST SP 800-90A's CTR construction
//! without its state). A block belongs to one process: [`NonceSource`] compares the process id before it
//! hands anything out, so that two backends forked from one preloaded parent never share a nonce.

use aes::Aes256Enc;
use cmk_error::{Reason, Result};
use ctr::Ctr128BE;
use ctr::cipher::{KeyIvInit, StreamCipher};
use zeroize::Zeroizing;

/// Bytes of a nonce.
pub const NONCE_LEN: usize = 24;

/// Nonces a block.
const BLOCK: usize = 256;

/// Random nonces, drawn from the system a block at a time.
pub struct NonceSource {
    block: [u8; BLOCK * NONCE_LEN],
    /// Offset of the next unused nonce; the end means empty.
    next: usize,
    pid: u32,
}

impl NonceSource {
    /// A source that draws its first block when it is asked.
    pub const fn new() -> Self {
        Self { block: [0; BLOCK * NONCE_LEN], next: BLOCK * NONCE_LEN, pid: 0 }
    }

    /// A fresh 192-bit nonce; zeroed in the block, so that it can't be handed out twice.
    ///
    /// `pid` is the caller's process id, which PostgreSQL keeps at hand.
    ///
    /// # Errors
    /// `system_random` if the operating system fails.
    #[inline]
    pub fn draw(&mut self, pid: u32) -> Result<[u8; NONCE_LEN]> {
        if self.next == self.block.len() || self.pid != pid {
            self.refill(pid)?;
        }
        let mut nonce = [0; NONCE_LEN];
        let unused = &mut self.block[self.next..self.next + NONCE_LEN];
        nonce.copy_from_slice(unused);
        unused.fill(0);
        self.next += NONCE_LEN;
        Ok(nonce)
    }

    #[cold]
    fn refill(&mut self, pid: u32) -> Result<()> {
        // Empty until the block is whole: a failed fill must not leave old nonces behind.
        self.next = self.block.len();
        let mut seed = Zeroizing::new([0; 32]);
        getrandom::fill(seed.as_mut_slice()).map_err(|_| Reason::SystemRandom)?;
        self.block.fill(0);
        Ctr128BE::<Aes256Enc>::new((&*seed).into(), &[0; 16].into())
            .apply_keystream(&mut self.block);
        self.next = 0;
        self.pid = pid;
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

    #[test]
    fn never_repeats_across_blocks() {
        let mut source = NonceSource::new();
        let drawn: HashSet<_> = (0..BLOCK * 3).map(|_| source.draw(1).unwrap()).collect();
        assert_eq!(drawn.len(), BLOCK * 3);
    }

    #[test]
    fn another_process_starts_a_block_of_its_own() {
        let mut parent = NonceSource::new();
        parent.draw(1).unwrap();
        let mut child = NonceSource { block: parent.block, next: parent.next, pid: parent.pid };
        assert_ne!(parent.draw(1).unwrap(), child.draw(2).unwrap());
    }
}
