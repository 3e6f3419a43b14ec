//! What a provider of keys is.

use crate::context::EncryptionContext;
use crate::key_facts::{Identity, KeyFacts, Management, OwnIdentity};
use crate::options::Options;
use crate::settings::Settings;
use cmk_crypto::key::SecretKey;
use cmk_error::{Reason, Result};
use std::any::Any;
use std::fmt::Debug;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

/// A kind of key management service.
pub trait Provider: Sync {
    /// What its key URIs begin with, up to the first colon (RFC 3986, section 3.1).
    fn scheme(&self) -> &'static str;

    /// A key of this provider. `uri` is the whole URI, of this scheme and not longer than the
    /// longest accepted. Another `session_epoch` means that nothing the owner allowed before, such
    /// as a session of an assumed role, is used for this key.
    ///
    /// # Errors
    /// `key_uri`; `key_options` for an option that the provider doesn't take; a reason of the
    /// provider's own for one that it takes and can't use. No error repeats the offending text.
    fn parse_key(
        &self,
        uri: &str,
        options: Options,
        session_epoch: i64,
    ) -> Result<Arc<dyn ProviderKey>>;

    /// Whom the service takes this server for, whatever key is used; `region` says where it is to
    /// be asked, if not where the server is. `None` where there is no such thing.
    ///
    /// # Errors
    /// As [`ProviderKey::unwrap`]; `endpoint` for a Region that can't be one.
    fn own_identity<'a>(
        &'a self,
        _call: &'a Call<'a>,
        _region: Option<&'a str>,
    ) -> Answer<'a, Option<OwnIdentity>> {
        Answer::Ready(Ok(None))
    }
}

/// What a provider answers a call with. Nothing is asked before somebody waits for it, and what is
/// dropped is given up.
pub enum Answer<'a, T> {
    /// It needs nobody.
    Ready(Result<T>),
    /// It comes over a network, or time is over.
    Waiting(Pin<Box<dyn Future<Output = Result<T>> + 'a>>),
}

/// A customer managed key, and what its provider does with it.
pub trait ProviderKey: Any + Debug + Send + Sync {
    /// As [`Kms::generate`](crate::Kms::generate).
    ///
    /// # Errors
    /// As there.
    fn generate<'a>(
        &'a self,
        call: &'a Call<'a>,
        context: &'a EncryptionContext<'a>,
    ) -> Answer<'a, Vec<u8>>;

    /// As [`Kms::unwrap`](crate::Kms::unwrap).
    ///
    /// # Errors
    /// As there.
    fn unwrap<'a>(
        &'a self,
        call: &'a Call<'a>,
        wrapped: &'a [u8],
        context: &'a EncryptionContext<'a>,
    ) -> Answer<'a, SecretKey>;

    /// As [`Kms::wrap`](crate::Kms::wrap).
    ///
    /// # Errors
    /// As there.
    fn wrap<'a>(
        &'a self,
        call: &'a Call<'a>,
        dek: &'a SecretKey,
        context: &'a EncryptionContext<'a>,
    ) -> Answer<'a, Vec<u8>>;

    /// As [`Kms::route`](crate::Kms::route). By default the service knows no other key.
    fn route(&self, _to: &dyn ProviderKey) -> Route {
        Route::UnwrapAndWrap
    }

    /// As [`Kms::rewrap`](crate::Kms::rewrap). The service can't do it by default.
    ///
    /// # Errors
    /// As there.
    fn rewrap<'a>(
        &'a self,
        _call: &'a Call<'a>,
        _wrapped: &'a [u8],
        _to: &'a dyn ProviderKey,
        _context: &'a EncryptionContext<'a>,
    ) -> Answer<'a, Vec<u8>> {
        Answer::Ready(Err(Reason::KmsRejected.into()))
    }

    /// As [`Kms::describe`](crate::Kms::describe). Nothing is known by default.
    ///
    /// # Errors
    /// As there.
    fn describe<'a>(&'a self, _call: &'a Call<'a>) -> Answer<'a, KeyFacts> {
        Answer::Ready(Ok(KeyFacts::default()))
    }

    /// As [`Kms::management`](crate::Kms::management). Nothing is known by default.
    ///
    /// # Errors
    /// As there.
    fn management<'a>(&'a self, _call: &'a Call<'a>) -> Answer<'a, Management> {
        Answer::Ready(Ok(Management::default()))
    }

    /// As [`Kms::identity`](crate::Kms::identity).
    ///
    /// # Errors
    /// As there.
    fn identity<'a>(&'a self, _call: &'a Call<'a>) -> Answer<'a, Option<Identity>> {
        Answer::Ready(Ok(None))
    }

    /// Whether the key is used as a role of its owner's, whose sessions outlive a withdrawal for a
    /// while.
    fn assumes_role(&self) -> bool {
        false
    }
}

/// How a data key gets from one customer managed key to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// Both are replicas of one key: the wrapped bytes stay as they are.
    SameBytes,
    /// One service reaches both, and does it without showing us the data key.
    Rewrap,
    /// By way of this server: the two can't see each other.
    UnwrapAndWrap,
}

/// The circumstances of one call.
pub struct Call<'a> {
    /// The server's settings as they are now.
    pub settings: &'a Settings,
    /// The caller's own limit, should it be sooner than the provider's timeouts.
    pub limit: Option<Duration>,
}
