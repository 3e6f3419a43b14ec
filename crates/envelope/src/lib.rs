//! The envelope: the bytes that stand in a column.
//!
//! ```text
//! offset  length  field
//!      0       1  magic 0xC1, which occurs in no UTF-8 text
//!      1       1  suite 0x01: XAES-256-GCM, HKDF-SHA-256 commitment
//!      2      16  dek_id, the first half of the data key's commitment
//!     18      24  nonce, random, drawn here
//!     42       n  ciphertext
//!   42+n      16  tag
//!
//! AAD = "cmk_encrypt/v1" ‖ header[0..18] ‖ len32(tenant) ‖ tenant ‖ len32(aad) ‖ aad
//! ```
//!
//! Lengths are big-endian. The AAD is not stored. Every part is length-prefixed or of fixed length,
//! so that no two different triples of header, tenant and aad give the same bytes.
//!
//! That is suite 1, which `cmk_encrypt()` returns, and it is in this file. Protected columns store
//! the suites of [`mod@column`]; [`armor`] writes those as text.

pub mod armor;
pub mod column;
mod frame;

use cmk_crypto::commitment::DekId;
use cmk_crypto::run::{Opens, Seals};
use cmk_error::{Reason, Result};
use frame::{DEK_ID_END, Frame};

/// The first byte of every envelope, which occurs in no UTF-8 text.
pub const MAGIC: u8 = 0xC1;
/// XAES-256-GCM with an HKDF-SHA-256 commitment.
pub const SUITE_1: u8 = 0x01;

const HEADER_LEN: usize = DEK_ID_END;

/// What an envelope is longer than its plaintext, in bytes.
pub const OVERHEAD: usize = frame::overhead(HEADER_LEN);

/// What an envelope is bound to without holding it: both have to be given again to open it.
#[derive(Clone, Copy, Debug)]
pub struct Binding<'a> {
    /// The tenant's name.
    pub tenant: &'a [u8],
    /// What else the caller chose, for instance the row's key; may be empty.
    pub aad: &'a [u8],
}

/// A well-formed envelope, borrowed. Well-formed says nothing about authentic.
#[derive(Clone, Copy, Debug)]
pub struct Envelope<'a>(Frame<'a, HEADER_LEN>);

impl<'a> Envelope<'a> {
    /// Splits `bytes` into the fields. Total over all inputs: never panics, never allocates.
    ///
    /// # Errors
    /// `not_an_envelope` for a wrong magic or fewer than [`OVERHEAD`] bytes; `unknown_suite`, also
    /// for an envelope of a protected column, which [`mod@column`] parses.
    #[inline]
    pub fn parse(bytes: &'a [u8]) -> Result<Self> {
        let [MAGIC, suite, ..] = bytes else { return Err(Reason::NotAnEnvelope.into()) };
        if *suite != SUITE_1 {
            return Err(Reason::UnknownSuite.into());
        }
        Frame::split(bytes).map(Self).ok_or_else(|| Reason::NotAnEnvelope.into())
    }

    /// The second byte.
    pub fn suite(&self) -> u8 {
        self.0.header[1]
    }

    /// Which data key opens it.
    #[inline]
    pub fn dek_id(&self) -> DekId {
        self.0.dek_id()
    }

    /// Length of the plaintext in bytes.
    #[inline]
    pub fn plaintext_len(&self) -> usize {
        self.0.ciphertext.len()
    }

    /// Opens the envelope into `out`, which is [`plaintext_len`](Self::plaintext_len) bytes and
    /// stays untouched on failure.
    ///
    /// # Errors
    /// `not_authentic`.
    #[inline]
    pub fn open(&self, cipher: impl Opens, binding: &Binding<'_>, out: &mut [u8]) -> Result<()> {
        self.0.open(cipher, binding, out)
    }
}

/// Seals `plaintext` into `out`, which is [`OVERHEAD`] bytes longer.
///
/// # Errors
/// `system_random`; `too_large` if `out` has another length.
#[inline]
pub fn seal(
    cipher: impl Seals,
    dek_id: DekId,
    binding: &Binding<'_>,
    plaintext: &[u8],
    out: &mut [u8],
) -> Result<()> {
    let mut header = [MAGIC; HEADER_LEN];
    header[1] = SUITE_1;
    header[2..].copy_from_slice(&dek_id.0);
    frame::seal(cipher, &header, binding, plaintext, out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use cmk_crypto::aead::Cipher;
    use cmk_crypto::commitment::Commitment;
    use cmk_crypto::key::SecretKey;
    use cmk_crypto::nonce::{Moment, NonceSource};
    use cmk_crypto::run::Fresh;

    struct Fixture {
        cipher: Cipher,
        dek_id: DekId,
        nonces: NonceSource,
    }

    const MOMENT: Moment = Moment { pid: 1, now: 1, statement: 1 };

    fn fixture() -> Fixture {
        let key = SecretKey::generate().unwrap();
        let dek_id = Commitment::to(&key, b"acme").dek_id();
        Fixture { cipher: Cipher::new(&key), dek_id, nonces: NonceSource::new() }
    }

    impl Fixture {
        fn seal(&mut self, tenant: &[u8], aad: &[u8], plaintext: &[u8]) -> Vec<u8> {
            let mut out = vec![0; plaintext.len() + OVERHEAD];
            let Self { cipher, dek_id, nonces } = self;
            let fresh = Fresh { cipher, nonces, moment: MOMENT };
            seal(fresh, *dek_id, &Binding { tenant, aad }, plaintext, &mut out).unwrap();
            out
        }

        fn open(&self, tenant: &[u8], aad: &[u8], bytes: &[u8]) -> Result<Vec<u8>> {
            let envelope = Envelope::parse(bytes)?;
            let mut out = vec![0; envelope.plaintext_len()];
            envelope.open(&self.cipher, &Binding { tenant, aad }, &mut out)?;
            Ok(out)
        }
    }

    #[test]
    fn opens_what_it_sealed() {
        let mut f = fixture();
        for plaintext in [&b""[..], b"x", &[7; 1000]] {
            for aad in [&b""[..], b"row 7", &[9; 5000]] {
                let sealed = f.seal(b"acme", aad, plaintext);
                assert_eq!(sealed.len(), plaintext.len() + 58);
                assert_eq!(f.open(b"acme", aad, &sealed).unwrap(), plaintext);
            }
        }
    }

    #[test]
    fn every_flipped_bit_truncation_and_extension_is_refused() {
        let mut f = fixture();
        let sealed = f.seal(b"acme", b"aad", b"the plaintext");
        for bit in 0..sealed.len() * 8 {
            let mut bad = sealed.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            let expected = match bit / 8 {
                0 => Reason::NotAnEnvelope,
                1 => Reason::UnknownSuite,
                _ => Reason::NotAuthentic,
            };
            assert_eq!(f.open(b"acme", b"aad", &bad).unwrap_err().reason, expected, "bit {bit}");
        }
        for len in 0..sealed.len() {
            let reason = f.open(b"acme", b"aad", &sealed[..len]).unwrap_err().reason;
            let short = len < OVERHEAD;
            assert_eq!(reason, if short { Reason::NotAnEnvelope } else { Reason::NotAuthentic });
        }
        let longer = [sealed.as_slice(), b"\0"].concat();
        assert_eq!(f.open(b"acme", b"aad", &longer).unwrap_err().reason, Reason::NotAuthentic);
    }

    /// Callers pass memory that holds who knows what.
    #[test]
    fn every_byte_of_the_room_is_written() {
        let f = &mut fixture();
        for length in [0, 1, 15, 64, 1000, 5000] {
            let mut is_written = vec![false; length + OVERHEAD];
            for round in 0..40_u8 {
                let mut out = vec![round; length + OVERHEAD];
                let fresh = Fresh { cipher: &f.cipher, nonces: &mut f.nonces, moment: MOMENT };
                let binding = Binding { tenant: b"acme", aad: b"" };
                seal(fresh, f.dek_id, &binding, &vec![7; length], &mut out).unwrap();
                is_written.iter_mut().zip(&out).for_each(|(is, byte)| *is |= *byte != round);
                let envelope = Envelope::parse(&out).unwrap();
                let mut opened = vec![round; length];
                envelope.open(&f.cipher, &binding, &mut opened).unwrap();
                assert_eq!(opened, vec![7; length]);
            }
            assert!(is_written.iter().all(|is| *is), "{length} bytes");
        }
    }

    #[test]
    fn tenant_and_aad_cannot_be_shifted_into_each_other() {
        let mut f = fixture();
        let sealed = f.seal(b"ab", b"c", b"value");
        for (tenant, aad) in [(&b"a"[..], &b"bc"[..]), (b"abc", b""), (b"ab", b"C"), (b"", b"abc")]
        {
            assert_eq!(f.open(tenant, aad, &sealed).unwrap_err().reason, Reason::NotAuthentic);
        }
    }

    #[test]
    fn sealing_twice_gives_different_bytes() {
        let mut f = fixture();
        assert_ne!(f.seal(b"acme", b"", b"same"), f.seal(b"acme", b"", b"same"));
    }

    #[test]
    fn an_envelope_says_which_data_key_opens_it_and_how_long_its_plaintext_is() {
        let mut f = fixture();
        let sealed = f.seal(b"acme", b"", b"value");
        let envelope = Envelope::parse(&sealed).unwrap();
        assert_eq!((envelope.suite(), envelope.plaintext_len()), (SUITE_1, 5));
        assert_eq!(envelope.dek_id(), f.dek_id);
    }

    #[test]
    fn room_of_another_length_than_the_envelope_is_refused() {
        let Fixture { cipher, dek_id, mut nonces } = fixture();
        let binding = Binding { tenant: b"acme", aad: b"" };
        for room in [0, 10, 42, OVERHEAD, OVERHEAD + 4, OVERHEAD + 6] {
            let mut out = vec![0; room];
            let fresh = Fresh { cipher: &cipher, nonces: &mut nonces, moment: MOMENT };
            let sealed = seal(fresh, dek_id, &binding, b"value", &mut out);
            assert_eq!(sealed.unwrap_err().reason, Reason::TooLarge, "{room} bytes");
        }
    }
}
