//! `local:NAME`.

use super::key_file::{self, LocalName};
use super::wrapped;
use crate::context::EncryptionContext;
use crate::options::Options;
use crate::provider::{Call, Provider, ProviderKey};
use cmk_crypto::key::SecretKey;
use cmk_error::{Error, Reason, Result};
use std::sync::Arc;

/// The local provider.
pub struct Local;

impl Provider for Local {
    fn scheme(&self) -> &'static str {
        "local"
    }

    fn parse_key(
        &self,
        uri: &str,
        options: Options,
        _session_epoch: i64,
    ) -> Result<Arc<dyn ProviderKey>> {
        let name = uri.strip_prefix("local:").and_then(LocalName::parse);
        let name = name.ok_or_else(|| Error::new(Reason::KeyUri))?;
        options.finish()?;
        Ok(Arc::new(LocalKey(name)))
    }
}

#[derive(Debug)]
struct LocalKey(LocalName);

impl LocalKey {
    fn read(&self, call: &Call<'_>) -> Result<SecretKey> {
        let directory = call.settings.local.directory.as_deref().ok_or(Reason::LocalKeysOff)?;
        key_file::read(directory, &self.0)
    }
}

impl ProviderKey for LocalKey {
    fn generate(&self, call: &Call<'_>, context: &EncryptionContext<'_>) -> Result<Vec<u8>> {
        let key = self.read(call)?;
        wrapped::wrap(&key, &context.to_canonical_json(), &SecretKey::generate()?)
    }

    fn unwrap(
        &self,
        call: &Call<'_>,
        wrapped: &[u8],
        context: &EncryptionContext<'_>,
    ) -> Result<SecretKey> {
        wrapped::unwrap(&self.read(call)?, &context.to_canonical_json(), wrapped)
    }
}
