//! Customer managed keys, parsed once.

use crate::options::Options;
use crate::provider::ProviderKey;
use crate::providers;
use cmk_error::{Error, Reason, Result};
use std::sync::Arc;

/// Longest key URI accepted, in bytes.
const URI_MAX: usize = 512;

/// Which customer managed key, and as whom we use it.
///
/// Two are equal if their URIs and options are. The epoch of their sessions is no part of that: it
/// changes with every eviction, and the key stays the same.
#[derive(Clone, Debug)]
pub struct CustomerKey {
    uri: Box<str>,
    options: Box<str>,
    key: Arc<dyn ProviderKey>,
}

impl CustomerKey {
    /// Parses what the registry has of a tenant's key: its URI, the provider's options as a JSON
    /// object, and the tenant's epoch. With another epoch, sessions of an assumed role are made
    /// anew, so that an eviction asks the key's owner again for the role too.
    ///
    /// # Errors
    /// `key_uri`, also for a provider that this build lacks; `key_options`; what the provider
    /// refuses an option with (`role_arn`, `external_id`). The offending text is not repeated,
    /// except the name of an option.
    pub fn parse(uri: &str, options: &str, session_epoch: i64) -> Result<Self> {
        // Before anything is taken apart: the caller may pass a gigabyte.
        if uri.len() > URI_MAX {
            return Err(Reason::KeyUri.into());
        }
        let provider = providers::of_uri(uri).ok_or_else(|| Error::new(Reason::KeyUri))?;
        let options = Options::parse(options)?;
        let canonical = options.to_canonical_json().into();
        let key = provider.parse_key(uri, options, session_epoch)?;
        Ok(Self { uri: uri.into(), options: canonical, key })
    }

    /// As it was given.
    pub fn uri(&self) -> &str {
        &self.uri
    }

    /// The options as a JSON object with sorted names and no white space; `{}` if there are none.
    pub fn options(&self) -> &str {
        &self.options
    }

    /// Whether the key is used as a role of its owner's. A session of such a role outlives the
    /// withdrawal of the role by up to 15 minutes.
    pub fn assumes_role(&self) -> bool {
        self.key.assumes_role()
    }

    /// The key as its provider knows it.
    pub(crate) fn provider_key(&self) -> &dyn ProviderKey {
        &*self.key
    }
}

impl PartialEq for CustomerKey {
    fn eq(&self, other: &Self) -> bool {
        self.uri == other.uri && self.options == other.options
    }
}

impl Eq for CustomerKey {}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(uri: &str, options: &str) -> Error {
        CustomerKey::parse(uri, options, 0).unwrap_err()
    }

    #[test]
    fn a_uri_of_no_provider_is_refused_whatever_its_options() {
        let long = format!("local:{}", "a".repeat(512));
        for uri in ["", ":", "acme", "vault:acme", "LOCAL:acme", "http://localhost/", &*long] {
            assert_eq!(refused(uri, "not json").reason, Reason::KeyUri, "{uri:?}");
        }
    }

    #[cfg(feature = "local")]
    #[test]
    fn a_local_key_takes_no_options() {
        let key = CustomerKey::parse("local:acme-2", " { } ", 7).unwrap();
        assert_eq!((key.uri(), key.options()), ("local:acme-2", "{}"));
        assert!(!key.assumes_role());
        let error = refused("local:acme", r#"{"role_arn": "x"}"#);
        assert_eq!(error.detail(), "reason=key_options option=role_arn");
        assert_eq!(refused("local:../acme", "{}").reason, Reason::KeyUri);
    }

    #[cfg(not(feature = "local"))]
    #[test]
    fn a_key_of_a_provider_that_the_build_lacks_is_refused() {
        assert_eq!(refused("local:acme", "{}").reason, Reason::KeyUri);
    }

    #[cfg(feature = "aws")]
    #[test]
    fn keys_are_equal_by_uri_and_options() {
        const URI: &str =
            "arn:aws:kms:eu-west-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab";
        let options =
            r#"{"role_arn": "arn:aws:iam::111122223333:role/cmk", "external_id": "acme"}"#;
        let key = CustomerKey::parse(URI, options, 1).unwrap();
        assert!(key.assumes_role());
        let canonical = r#"{"external_id":"acme","role_arn":"arn:aws:iam::111122223333:role/cmk"}"#;
        assert_eq!(key.options(), canonical);
        assert_eq!(key, CustomerKey::parse(URI, canonical, 2).unwrap());
        let direct = CustomerKey::parse(URI, "{}", 1).unwrap();
        assert_ne!(key, direct);
        assert!(!direct.assumes_role());
    }
}
