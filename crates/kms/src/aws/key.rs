//! What AWS KMS does with a key.

use super::assumed_role::AssumedRole;
use super::classify::classify;
use super::clients::CLIENTS;
use super::connect::Made;
use super::failure;
use super::key_arn::KeyArn;
use super::{describe, environment, identity, management, requests};
use crate::context::EncryptionContext;
use crate::key_facts::{Identity, KeyFacts, Management, OwnIdentity};
use crate::provider::{Answer, Call, ProviderKey, Route};
use crate::trace::About;
use aws_sdk_kms::primitives::Blob;
use cmk_crypto::key::{KEY_LEN, SecretKey};
use cmk_error::{Cause, Reason, Result};
use std::any::Any;
use std::collections::HashMap;
use zeroize::Zeroizing;

/// Longest wrapped data key that KMS takes (KMS API Reference, Decrypt, `CiphertextBlob`), in
/// bytes.
const WRAPPED_MAX: usize = 6144;

/// A KMS key, and the role as which we use it, if not as ourselves.
#[derive(Debug)]
pub struct AwsKey {
    /// Passed with every call.
    pub arn: KeyArn,
    /// `None`: the server's own identity.
    pub role: Option<AssumedRole>,
}

impl ProviderKey for AwsKey {
    fn generate<'a>(
        &'a self,
        call: &'a Call<'a>,
        context: &'a EncryptionContext<'a>,
    ) -> Answer<'a, Vec<u8>> {
        let about = self.about(Some(context));
        self.ask(call, about, "GenerateDataKeyWithoutPlaintext", async move |made| {
            let answer = made
                .client
                .generate_data_key_without_plaintext()
                .key_id(self.arn.as_str())
                .number_of_bytes(KEY_LEN as i32)
                .set_encryption_context(Some(owned(context)))
                .send()
                .await
                .map_err(|error| classify(&error))?;
            self.check_key_id(answer.key_id())?;
            wrapped(answer.ciphertext_blob)
        })
    }

    fn unwrap<'a>(
        &'a self,
        call: &'a Call<'a>,
        wrapped: &'a [u8],
        context: &'a EncryptionContext<'a>,
    ) -> Answer<'a, SecretKey> {
        self.ask(call, self.about(Some(context)), "Decrypt", async move |made| {
            let answer = made
                .client
                .decrypt()
                .key_id(self.arn.as_str())
                .ciphertext_blob(Blob::new(wrapped))
                .set_encryption_context(Some(owned(context)))
                .send()
                .await
                .map_err(|error| classify(&error))?;
            self.check_key_id(answer.key_id())?;
            let plaintext = answer.plaintext.map(Blob::into_inner).unwrap_or_default();
            SecretKey::from_slice(&Zeroizing::new(plaintext))
        })
    }

    /// The plain data key is copied into the SDK's request, which is freed before this returns. The
    /// library's allocator zeroes what it frees (`src/lib.rs`).
    fn wrap<'a>(
        &'a self,
        call: &'a Call<'a>,
        dek: &'a SecretKey,
        context: &'a EncryptionContext<'a>,
    ) -> Answer<'a, Vec<u8>> {
        self.ask(call, self.about(Some(context)), "Encrypt", async move |made| {
            let answer = made
                .client
                .encrypt()
                .key_id(self.arn.as_str())
                .plaintext(Blob::new(dek.expose_secret().as_slice()))
                .set_encryption_context(Some(owned(context)))
                .send()
                .await
                .map_err(|error| classify(&error))?;
            self.check_key_id(answer.key_id())?;
            wrapped(answer.ciphertext_blob)
        })
    }

    /// Multi-Region keys have the same id in every Region (KMS Developer Guide, "Multi-Region
    /// keys"). ReEncrypt takes one principal that may use both keys, in one Region (KMS API
    /// Reference, ReEncrypt).
    fn route(&self, to: &dyn ProviderKey) -> Route {
        match (to as &dyn Any).downcast_ref::<Self>() {
            Some(to) if self.arn.is_replica_of(&to.arn) => Route::SameBytes,
            Some(to) if self.sees(to) => Route::Rewrap,
            _ => Route::UnwrapAndWrap,
        }
    }

    fn rewrap<'a>(
        &'a self,
        call: &'a Call<'a>,
        bytes: &'a [u8],
        to: &'a dyn ProviderKey,
        context: &'a EncryptionContext<'a>,
    ) -> Answer<'a, Vec<u8>> {
        let Some(to) = (to as &dyn Any).downcast_ref::<Self>().filter(|to| self.sees(to)) else {
            return Answer::Ready(Err(Reason::KmsRejected.into()));
        };
        let about = About { to_key_uri: Some(to.arn.as_str()), ..self.about(Some(context)) };
        self.ask(call, about, "ReEncrypt", async move |made| {
            let answer = made
                .client
                .re_encrypt()
                .source_key_id(self.arn.as_str())
                .set_source_encryption_context(Some(owned(context)))
                .destination_key_id(to.arn.as_str())
                .set_destination_encryption_context(Some(owned(context)))
                .ciphertext_blob(Blob::new(bytes))
                .send()
                .await
                .map_err(|error| classify(&error))?;
            self.check_key_id(answer.source_key_id())?;
            to.check_key_id(answer.key_id())?;
            wrapped(answer.ciphertext_blob)
        })
    }

    fn describe<'a>(&'a self, call: &'a Call<'a>) -> Answer<'a, KeyFacts> {
        self.ask(call, self.about(None), "DescribeKey", async move |made| {
            describe::describe(&made.client, &self.arn).await
        })
    }

    fn management<'a>(&'a self, call: &'a Call<'a>) -> Answer<'a, Management> {
        self.ask(call, self.about(None), "GetKeyPolicy", async move |made| {
            management::management(made, &self.arn, self.role.as_ref()).await
        })
    }

    fn identity<'a>(&'a self, call: &'a Call<'a>) -> Answer<'a, Option<Identity>> {
        // Our own, whatever role the key is used as.
        let (settings, region) = (&call.settings.aws, self.arn.region());
        within_time(call, self.about(None), "GetCallerIdentity", async move {
            let ask = async |made: &Made| identity::identity(made).await.map(Some);
            CLIENTS.call(settings, region, None, ask).await
        })
    }

    fn assumes_role(&self) -> bool {
        self.role.is_some()
    }
}

impl AwsKey {
    fn about<'a>(&'a self, context: Option<&'a EncryptionContext<'a>>) -> About<'a> {
        About { key_uri: self.arn.as_str(), to_key_uri: None, context }
    }

    /// A request where the key is.
    fn ask<'a, R: 'a>(
        &'a self,
        call: &'a Call<'a>,
        about: About<'a>,
        operation: &'static str,
        request: impl AsyncFn(&Made) -> Result<R> + 'a,
    ) -> Answer<'a, R> {
        let (settings, role) = (&call.settings.aws, self.role.as_ref());
        within_time(call, about, operation, async move {
            CLIENTS.call(settings, self.arn.region(), role, request).await
        })
    }

    /// Whether one principal reaches both keys in one place. Sessions of a role that began at
    /// different times are one principal.
    fn sees(&self, other: &Self) -> bool {
        let role =
            |key: &Self| key.role.as_ref().map(|role| (role.arn.clone(), role.external_id.clone()));
        self.arn.region() == other.arn.region() && role(self) == role(other)
    }

    /// KMS says which key it used; anything but the one we named is somebody else's answer.
    fn check_key_id(&self, answered: Option<&str>) -> Result<()> {
        match answered == Some(self.arn.as_str()) {
            true => Ok(()),
            false => Err(Reason::KmsAnswerMismatch.into()),
        }
    }
}

/// A request with the operation timeout over everything in it, client set-up and credentials
/// included.
fn within_time<'a, R: 'a>(
    call: &Call<'_>,
    about: About<'a>,
    operation: &'static str,
    answer: impl Future<Output = Result<R>> + 'a,
) -> Answer<'a, R> {
    // Boxed first: what is put around it would otherwise be copied with all of it on the stack.
    let answer = Box::pin(answer);
    let whole = call.settings.aws.operation_timeout;
    let longest = call.limit.map_or(whole, |limit| limit.min(whole));
    Answer::Waiting(Box::pin(requests::of_call(about, operation, async move {
        let answer = tokio::time::timeout(longest, answer).await;
        let answer = answer.unwrap_or_else(|_elapsed| Err(failure::timed_out()));
        answer.map_err(|error| match longest < whole {
            // What would have come of it, had the caller waited, is not known.
            true if error.cause() == Some(Cause::CredentialsTimeout) => Reason::KmsTimeout.into(),
            _ => error,
        })
    })))
}

/// Whom STS takes us for: in this Region, or in ours, or in the one that AWS's tools begin with.
///
/// # Errors
/// `endpoint` for a Region that can't be one; `credentials`; what STS fails with.
pub fn own_identity<'a>(
    call: &'a Call<'a>,
    region: Option<&'a str>,
) -> Answer<'a, Option<OwnIdentity>> {
    let about = About { key_uri: "", to_key_uri: None, context: None };
    within_time(call, about, "GetCallerIdentity", async move {
        let region = match region {
            Some(region) => environment::named_region(region)?,
            None => environment::default_region().await?,
        };
        CLIENTS
            .call(&call.settings.aws, &region, None, async move |made| {
                let identity = identity::identity(made).await?;
                let (credentials, region) = (made.identity.provider(), made.own_region().into());
                Ok(Some(OwnIdentity { identity, credentials, region }))
            })
            .await
    })
}

fn wrapped(blob: Option<Blob>) -> Result<Vec<u8>> {
    let wrapped = blob.map(Blob::into_inner).unwrap_or_default();
    match (1..=WRAPPED_MAX).contains(&wrapped.len()) {
        true => Ok(wrapped),
        false => Err(Reason::KmsAnswerMismatch.into()),
    }
}

fn owned(context: &EncryptionContext<'_>) -> HashMap<String, String> {
    context.pairs().map(|(key, value)| (key.to_owned(), value.to_owned())).into()
}
