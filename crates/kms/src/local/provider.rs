//! `local:NAME`.

use super::key_file::{self, LocalName};
use super::wrapped;
use crate::context::EncryptionContext;
use crate::key_facts::KeyFacts;
use crate::options::Options;
use crate::provider::{Answer, Call, Provider, ProviderKey};
use crate::trace::{self, About, Began, Outcome};
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
        Ok(Arc::new(LocalKey { name, uri: uri.into() }))
    }
}

#[derive(Debug)]
struct LocalKey {
    name: LocalName,
    uri: Box<str>,
}

impl LocalKey {
    fn read(&self, call: &Call<'_>) -> Result<SecretKey> {
        let directory = call.settings.local.directory.as_deref().ok_or(Reason::LocalKeysOff)?;
        key_file::read(directory, &self.name)
    }

    /// Does `work`, and leaves a trace of how it went.
    fn traced<'a, R>(
        &self,
        operation: &'static str,
        context: Option<&EncryptionContext<'_>>,
        work: impl FnOnce() -> Result<R>,
    ) -> Answer<'a, R> {
        let about = About { key_uri: &self.uri, to_key_uri: None, context };
        let began = Began::now();
        let done = work();
        let outcome = match &done {
            Ok(_) => Outcome::Success,
            Err(error) => Outcome::Failure(error.reason),
        };
        trace::record(about.entry("local", operation, outcome, began));
        Answer::Ready(done)
    }
}

impl ProviderKey for LocalKey {
    fn generate<'a>(
        &'a self,
        call: &'a Call<'a>,
        context: &'a EncryptionContext<'a>,
    ) -> Answer<'a, Vec<u8>> {
        self.traced("generate", Some(context), || {
            let key = self.read(call)?;
            wrapped::wrap(&key, &context.to_canonical_json(), &SecretKey::generate()?)
        })
    }

    fn unwrap<'a>(
        &'a self,
        call: &'a Call<'a>,
        wrapped: &'a [u8],
        context: &'a EncryptionContext<'a>,
    ) -> Answer<'a, SecretKey> {
        self.traced("unwrap", Some(context), || {
            wrapped::unwrap(&self.read(call)?, &context.to_canonical_json(), wrapped)
        })
    }

    fn wrap<'a>(
        &'a self,
        call: &'a Call<'a>,
        dek: &'a SecretKey,
        context: &'a EncryptionContext<'a>,
    ) -> Answer<'a, Vec<u8>> {
        self.traced("wrap", Some(context), || {
            wrapped::wrap(&self.read(call)?, &context.to_canonical_json(), dek)
        })
    }

    /// A file that is there can be used, and there is no more to it.
    fn describe<'a>(&'a self, call: &'a Call<'a>) -> Answer<'a, KeyFacts> {
        self.traced("describe", None, || {
            self.read(call)?;
            Ok(KeyFacts { enabled: Some(true), can_wrap: Some(true), ..KeyFacts::default() })
        })
    }
}
