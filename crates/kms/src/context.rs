//! The encryption context: what a wrapped data key is bound to inside KMS.
//!
//! It stands in clear in the tenant's CloudTrail, and key policies can require it
//! (`kms:EncryptionContext:tenant`), so it holds nothing secret. It has to be the same for the
//! whole life of a data key, hence a format version and not the version of the software.

use serde::{Serialize, Serializer};

/// What a data key is for. A key policy can allow one purpose and not the other
/// (`kms:EncryptionContext:purpose`), and a data key of one is never unwrapped as the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Purpose {
    /// Seals and opens values.
    Values,
    /// Makes search tokens.
    Index,
}

impl Purpose {
    /// All there are.
    pub const ALL: [Self; 2] = [Self::Values, Self::Index];

    /// As the encryption context and the registry have it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Values => "values",
            Self::Index => "index",
        }
    }

    /// Inverse of [`Purpose::name`].
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|purpose| purpose.name() == name)
    }
}

impl Serialize for Purpose {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

/// AWS KMS Developer Guide, "Encryption context". Fields are declared in alphabetical order, which
/// makes the derived JSON canonical.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct EncryptionContext<'a> {
    cmk_encrypt: &'static str,
    purpose: Purpose,
    tenant: &'a str,
}

impl<'a> EncryptionContext<'a> {
    /// The context of a tenant's data keys of this purpose.
    pub fn new(tenant: &'a str, purpose: Purpose) -> Self {
        Self { cmk_encrypt: "v1", purpose, tenant }
    }

    /// Whose data key it is.
    pub fn tenant(&self) -> &'a str {
        self.tenant
    }

    /// What the data key is for.
    pub fn purpose(&self) -> Purpose {
        self.purpose
    }

    /// Names and values, in alphabetical order of the names.
    pub fn pairs(&self) -> [(&'static str, &'a str); 3] {
        let purpose = self.purpose.name();
        [("cmk_encrypt", self.cmk_encrypt), ("purpose", purpose), ("tenant", self.tenant)]
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
            EncryptionContext::new("a\"b", Purpose::Values).to_canonical_json(),
            br#"{"cmk_encrypt":"v1","purpose":"values","tenant":"a\"b"}"#
        );
    }

    #[test]
    fn purposes_resolve_back() {
        for purpose in Purpose::ALL {
            assert_eq!(Purpose::from_name(purpose.name()), Some(purpose));
        }
        assert_eq!(Purpose::from_name("dek"), None);
    }
}
