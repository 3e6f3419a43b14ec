//! The encryption context: what a wrapped data key is bound to inside KMS.
//!
//! It stands in clear in the tenant's CloudTrail, and key policies can require it
//! (`kms:EncryptionContext:tenant`), so it holds nothing secret. It has to be the same for the whole
//! life of a data key, hence a format version and not the version of the software.

use serde::Serialize;

/// AWS KMS Developer Guide, "Encryption context". Fields are declared in alphabetical order, which makes
/// the derived JSON canonical.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct EncryptionContext<'a> {
    cmk_encrypt: &'static str,
    purpose: &'static str,
    tenant: &'a str,
}

impl<'a> EncryptionContext<'a> {
    /// The context of a tenant's data keys.
    pub fn data_key(tenant: &'a str) -> Self {
        Self { cmk_encrypt: "v1", purpose: "dek", tenant }
    }

    pub fn pairs(&self) -> [(&'static str, &'a str); 3] {
        [("cmk_encrypt", self.cmk_encrypt), ("purpose", self.purpose), ("tenant", self.tenant)]
    }

    /// JSON with sorted keys and no white space: the AAD of the local provider.
    pub fn to_canonical_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("three strings are always valid JSON")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_canonical() {
        assert_eq!(
            EncryptionContext::data_key("a\"b").to_canonical_json(),
            br#"{"cmk_encrypt":"v1","purpose":"dek","tenant":"a\"b"}"#
        );
    }
}
