//! Calls for many keys side by side: one that hangs delays no other.

use crate::context::{EncryptionContext, Purpose};
use crate::customer_key::CustomerKey;
use crate::key_facts::KeyFacts;
use crate::provider::{Answer, Call};
use crate::runtime;
use crate::settings::Settings;
use cmk_crypto::key::SecretKey;
use cmk_error::Result;
use futures_util::stream::FuturesUnordered;
use std::pin::Pin;
use std::rc::Rc;

/// Calls under way, each of which will end as an `E`. What is dropped is given up.
pub struct ConcurrentCalls<E>(FuturesUnordered<Pin<Box<dyn Future<Output = E>>>>);

/// A data key as it is wrapped, for [`ConcurrentCalls::unwrap`].
pub struct Wrapped {
    /// What wrapped it.
    pub key: CustomerKey,
    /// The wrapped bytes.
    pub bytes: Box<[u8]>,
    /// Whose data key it is, by the encryption context.
    pub tenant: Box<str>,
    /// What it is for, likewise.
    pub purpose: Purpose,
}

impl<E> Default for ConcurrentCalls<E> {
    fn default() -> Self {
        Self(FuturesUnordered::new())
    }
}

impl<E> ConcurrentCalls<E> {
    /// How many are under way.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// True if there is nothing to wait for.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Unwraps a data key, as [`Kms::unwrap`](crate::Kms::unwrap) does, and makes `then` of what
    /// comes of it.
    pub fn unwrap(
        &mut self,
        settings: &Rc<Settings>,
        wrapped: Wrapped,
        then: impl FnOnce(Result<SecretKey>) -> E + 'static,
    ) {
        let settings = settings.clone();
        self.0.push(Box::pin(async move {
            let call = Call { settings: &settings, limit: None };
            let Wrapped { key, bytes, tenant, purpose } = &wrapped;
            let context = EncryptionContext::new(tenant, *purpose);
            then(answered(key.provider_key().unwrap(&call, bytes, &context)).await)
        }));
    }

    /// Asks what there is to know of a key, as [`Kms::describe`](crate::Kms::describe) does.
    pub fn describe(
        &mut self,
        settings: &Rc<Settings>,
        key: CustomerKey,
        then: impl FnOnce(Result<KeyFacts>) -> E + 'static,
    ) {
        let settings = settings.clone();
        self.0.push(Box::pin(async move {
            let call = Call { settings: &settings, limit: None };
            then(answered(key.provider_key().describe(&call)).await)
        }));
    }

    /// Waits until one of them has ended, for some tens of milliseconds at most. `None`: none has.
    ///
    /// # Errors
    /// `kms_unreachable` if this process lacks what waiting takes.
    pub fn wait(&mut self) -> Result<Option<E>> {
        runtime::drive_one_of(&mut self.0)
    }
}

async fn answered<T>(answer: Answer<'_, T>) -> Result<T> {
    match answer {
        Answer::Ready(answer) => answer,
        Answer::Waiting(answer) => answer.await,
    }
}
