//! The golden envelopes of protected columns.

use cmk_crypto::aead::Cipher;
use cmk_crypto::key::SecretKey;
use cmk_envelope::column::ColumnEnvelope;
use cmk_error::Reason;
use data_encoding::HEXLOWER;
use serde_json::Value;
use std::sync::LazyLock;

/// A golden envelope of a column and what opens it.
pub struct GoldenColumn {
    key: Vec<u8>,
    tenant: String,
    cipher: Cipher,
    plaintext: Vec<u8>,
    envelope: Vec<u8>,
}

/// Of all suites.
pub static COLUMNS: LazyLock<Vec<GoldenColumn>> = LazyLock::new(|| {
    let vectors = |document| {
        let document: Value = serde_json::from_str(document).unwrap();
        document["valid"].as_array().unwrap().iter().map(GoldenColumn::from_vector).collect()
    };
    let suites = [
        include_str!("../vectors/suite2.json"),
        include_str!("../vectors/suite3.json"),
        include_str!("../vectors/suite3_rules.json"),
        include_str!("../vectors/suite4.json"),
    ];
    suites.map(vectors).into_iter().flat_map(|golden: Vec<_>| golden).collect()
});

impl GoldenColumn {
    fn from_vector(vector: &Value) -> Self {
        let text = |field: &str| vector[field].as_str().unwrap();
        let bytes = |field| HEXLOWER.decode(text(field).as_bytes()).unwrap();
        Self {
            cipher: Cipher::new(&SecretKey::from_slice(&bytes("key")).unwrap()),
            key: bytes("key"),
            tenant: text("tenant").into(),
            plaintext: bytes("plaintext"),
            envelope: bytes("envelope"),
        }
    }

    /// As [`Golden::judge`](super::Golden::judge), under the key and for the tenant of this one.
    ///
    /// # Panics
    /// Where it is not so: a finding.
    pub fn judge(&self, bytes: &[u8], envelope: &ColumnEnvelope<'_>) {
        let expected = COLUMNS
            .iter()
            .find(|golden| golden.envelope == bytes && golden.opens_for(self))
            .map(|golden| golden.plaintext.as_slice())
            .ok_or(Reason::NotAuthentic);
        let mut plaintext = vec![0; envelope.plaintext_len()];
        let opened = envelope.open(&self.cipher, self.tenant.as_bytes(), &mut plaintext);
        let opened = opened.map(|()| plaintext.as_slice()).map_err(|error| error.reason);
        assert_eq!(opened, expected, "forged, or golden and refused");
    }

    fn opens_for(&self, other: &Self) -> bool {
        self.key == other.key && self.tenant == other.tenant
    }
}
