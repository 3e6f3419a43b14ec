//! The golden envelopes of `tests/vectors/`, which the fuzz targets start from and judge by.

mod columns;

pub use columns::COLUMNS;

use cmk_crypto::aead::Cipher;
use cmk_crypto::key::SecretKey;
use cmk_envelope::Envelope;
use cmk_error::{Reason, Result};
use data_encoding::HEXLOWER;
use serde_json::Value;
use std::sync::LazyLock;

/// A golden envelope and what opens it.
pub struct Golden {
    binding: Binding,
    cipher: Cipher,
    plaintext: Vec<u8>,
    pub envelope: Vec<u8>,
}

/// What an envelope is bound to. Several golden envelopes share one.
#[derive(PartialEq)]
struct Binding {
    key: Vec<u8>,
    tenant: String,
    aad: Vec<u8>,
}

pub static GOLDEN: LazyLock<Vec<Golden>> = LazyLock::new(|| {
    let document: Value = serde_json::from_str(include_str!("../vectors/suite1.json")).unwrap();
    document["valid"].as_array().unwrap().iter().map(Golden::from_vector).collect()
});

impl Golden {
    fn from_vector(vector: &Value) -> Self {
        let text = |field: &str| vector[field].as_str().unwrap();
        let bytes = |field| HEXLOWER.decode(text(field).as_bytes()).unwrap();
        let binding =
            Binding { key: bytes("key"), tenant: text("tenant").into(), aad: bytes("aad") };
        Self {
            cipher: Cipher::new(&SecretKey::from_slice(&binding.key).unwrap()),
            binding,
            plaintext: bytes("plaintext"),
            envelope: bytes("envelope"),
        }
    }

    /// Asserts the one thing that matters: of all bytes there are, only golden envelopes open under
    /// their binding, each to its plaintext, and all others fail as not authentic.
    ///
    /// # Panics
    /// Where it is not so: a finding.
    pub fn judge(&self, bytes: &[u8], envelope: &Envelope<'_>) {
        let expected = GOLDEN
            .iter()
            .find(|golden| golden.envelope == bytes && golden.binding == self.binding)
            .map(|golden| &golden.plaintext)
            .ok_or(&Reason::NotAuthentic);
        let opened = self.open(envelope).map_err(|error| error.reason);
        assert_eq!(opened.as_ref(), expected, "forged, or golden and refused");
    }

    /// Opens `envelope` with the key, tenant and aad of this one.
    fn open(&self, envelope: &Envelope<'_>) -> Result<Vec<u8>> {
        let Binding { tenant, aad, .. } = &self.binding;
        let mut plaintext = vec![0; envelope.plaintext_len()];
        let binding = cmk_envelope::Binding { tenant: tenant.as_bytes(), aad };
        envelope.open(&self.cipher, &binding, &mut plaintext)?;
        Ok(plaintext)
    }
}
