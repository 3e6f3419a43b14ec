//! What all suites share: how the bytes divide, and what the cipher binds.
//!
//! ```text
//! header, of a length that the suite fixes | nonce 24 | ciphertext n | tag 16
//!
//! AAD = "cmk_encrypt/v1" ‖ header ‖ len32(tenant) ‖ tenant ‖ len32(aad) ‖ aad
//! ```

use super::Binding;
use cmk_crypto::aead::TAG_LEN;
use cmk_crypto::commitment::{DEK_ID_LEN, DekId};
use cmk_crypto::nonce::NONCE_LEN;
use cmk_crypto::run::{Opens, Room, Seals};
use cmk_error::{Reason, Result};

const DOMAIN: &[u8; 14] = b"cmk_encrypt/v1";
const DEK_ID_AT: usize = 2;

/// Where the names that follow the `dek_id` begin, if the suite has any.
pub(crate) const DEK_ID_END: usize = DEK_ID_AT + DEK_ID_LEN;

/// What an envelope with a header of this length is longer than its plaintext.
pub(crate) const fn overhead(header_len: usize) -> usize {
    header_len + NONCE_LEN + TAG_LEN
}

/// An envelope whose header has `HEADER` bytes, borrowed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Frame<'a, const HEADER: usize> {
    pub(crate) header: &'a [u8; HEADER],
    pub(crate) nonce: &'a [u8; NONCE_LEN],
    pub(crate) ciphertext: &'a [u8],
    tag: &'a [u8; TAG_LEN],
}

impl<'a, const HEADER: usize> Frame<'a, HEADER> {
    /// Divides `bytes`; `None` if there are fewer than [`overhead`].
    #[inline]
    pub(crate) fn split(bytes: &'a [u8]) -> Option<Self> {
        let (header, rest) = bytes.split_first_chunk()?;
        let (nonce, rest) = rest.split_first_chunk()?;
        let (ciphertext, tag) = rest.split_last_chunk()?;
        Some(Self { header, nonce, ciphertext, tag })
    }

    #[inline]
    pub(crate) fn dek_id(&self) -> DekId {
        DekId(field(self.header, DEK_ID_AT))
    }

    /// Opens it into `out`, which stays untouched on failure: `not_authentic`.
    #[inline]
    pub(crate) fn open(
        &self,
        cipher: impl Opens,
        binding: &Binding<'_>,
        out: &mut [u8],
    ) -> Result<()> {
        with_aad(self.header, binding, |aad| {
            cipher.open(self.nonce, aad, self.ciphertext, self.tag, out)
        })
    }
}

/// The field of a header that begins at `at`. Both are constants of the suite, so that an index out
/// of range fails every test.
#[inline]
pub(crate) fn field<const LEN: usize>(header: &[u8], at: usize) -> [u8; LEN] {
    let mut out = [0; LEN];
    out.copy_from_slice(&header[at..at + LEN]);
    out
}

/// Seals `plaintext` behind `header` into `out`.
///
/// # Errors
/// `system_random`; `too_large` if `out` is not [`overhead`] bytes longer than `plaintext`.
#[inline]
pub(crate) fn seal<const HEADER: usize>(
    cipher: impl Seals,
    header: &[u8; HEADER],
    binding: &Binding<'_>,
    plaintext: &[u8],
    out: &mut [u8],
) -> Result<()> {
    let room = || Reason::TooLarge;
    let (head, rest) = out.split_first_chunk_mut::<HEADER>().ok_or_else(room)?;
    let (nonce, rest) = rest.split_first_chunk_mut::<NONCE_LEN>().ok_or_else(room)?;
    let (ciphertext, tag) = rest.split_last_chunk_mut().ok_or_else(room)?;
    *head = *header;
    let room = Room { nonce, ciphertext, tag };
    with_aad(header, binding, |aad| cipher.seal(aad, plaintext, room))
}

/// Builds the AAD for the length of a call: on the stack for all common lengths. The shortest have
/// less room there, because all of it is zeroed first.
#[inline]
fn with_aad<R>(
    header: &[u8],
    &Binding { tenant, aad }: &Binding<'_>,
    use_it: impl FnOnce(&[u8]) -> Result<R>,
) -> Result<R> {
    const SHORT: usize = 96;
    const ON_STACK: usize = 384;
    let len = DOMAIN.len() + header.len() + 4 + tenant.len() + 4 + aad.len();
    let fill = |buffer: &mut [u8]| {
        let mut rest = buffer;
        let mut put = |part: &[u8]| {
            let (head, tail) = std::mem::take(&mut rest).split_at_mut(part.len());
            head.copy_from_slice(part);
            rest = tail;
        };
        put(DOMAIN);
        put(header);
        // A PostgreSQL value is shorter than 1 GiB, so a length always fits 32 bits.
        put(&(tenant.len() as u32).to_be_bytes());
        put(tenant);
        put(&(aad.len() as u32).to_be_bytes());
        put(aad);
    };
    if len <= SHORT {
        let mut buffer = [0; SHORT];
        fill(&mut buffer[..len]);
        use_it(&buffer[..len])
    } else if len <= ON_STACK {
        let mut buffer = [0; ON_STACK];
        fill(&mut buffer[..len]);
        use_it(&buffer[..len])
    } else {
        // The caller's aad may be large, and a failed allocation must not abort the server.
        let mut buffer = Vec::new();
        buffer.try_reserve_exact(len).map_err(|_| Reason::OutOfMemory)?;
        buffer.resize(len, 0);
        fill(&mut buffer);
        use_it(&buffer)
    }
}
