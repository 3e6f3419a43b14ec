//! What AWS KMS does with a key.

use super::assumed_role::AssumedRole;
use super::classify::classify;
use super::clients::CLIENTS;
use super::connect::Made;
use super::failure;
use super::key_arn::KeyArn;
use super::requests::Noted;
use super::{describe, environment, identity, management};
use crate::context::EncryptionContext;
use crate::key_facts::{Identity, KeyFacts, Management, OwnIdentity};
use crate::provider::{Call, ProviderKey, Route};
use crate::runtime;
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
    fn generate(&self, call: &Call<'_>, context: &EncryptionContext<'_>) -> Result<Vec<u8>> {
        let about = self.about(Some(context));
        self.wait(call, about, "GenerateDataKeyWithoutPlaintext", async |made| {
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

    fn unwrap(
        &self,
        call: &Call<'_>,
        wrapped: &[u8],
        context: &EncryptionContext<'_>,
    ) -> Result<SecretKey> {
        self.wait(call, self.about(Some(context)), "Decrypt", async |made| {
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
    fn wrap(
        &self,
        call: &Call<'_>,
        dek: &SecretKey,
        context: &EncryptionContext<'_>,
    ) -> Result<Vec<u8>> {
        self.wait(call, self.about(Some(context)), "Encrypt", async |made| {
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

    fn rewrap(
        &self,
        call: &Call<'_>,
        bytes: &[u8],
        to: &dyn ProviderKey,
        context: &EncryptionContext<'_>,
    ) -> Result<Vec<u8>> {
        let Some(to) = (to as &dyn Any).downcast_ref::<Self>().filter(|to| self.sees(to)) else {
            return Err(Reason::KmsRejected.into());
        };
        let about = About { to_key_uri: Some(to.arn.as_str()), ..self.about(Some(context)) };
        self.wait(call, about, "ReEncrypt", async |made| {
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

    fn describe(&self, call: &Call<'_>) -> Result<KeyFacts> {
        self.wait(call, self.about(None), "DescribeKey", async |made| {
            describe::describe(&made.client, &self.arn).await
        })
    }

    fn management(&self, call: &Call<'_>) -> Result<Management> {
        self.wait(call, self.about(None), "GetKeyPolicy", async |made| {
            management::management(made, &self.arn, self.role.as_ref()).await
        })
    }

    fn identity(&self, call: &Call<'_>) -> Result<Option<Identity>> {
        // Our own, whatever role the key is used as.
        let own = Self { arn: self.arn.clone(), role: None };
        own.wait(call, self.about(None), "GetCallerIdentity", async |made| {
            identity::identity(made).await.map(Some)
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

    /// Makes a request where the key is.
    fn wait<R>(
        &self,
        call: &Call<'_>,
        about: About<'_>,
        operation: &'static str,
        request: impl AsyncFn(&Made) -> Result<R>,
    ) -> Result<R> {
        let settings = &call.settings.aws;
        let answer = CLIENTS.call(settings, self.arn.region(), self.role.as_ref(), request);
        wait_for(call, about, operation, answer)
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

/// Makes a request with the operation timeout over everything in it, client set-up and credentials
/// included.
fn wait_for<R>(
    call: &Call<'_>,
    about: About<'_>,
    operation: &'static str,
    answer: impl Future<Output = Result<R>>,
) -> Result<R> {
    let whole = call.settings.aws.operation_timeout;
    let longest = call.limit.map_or(whole, |limit| limit.min(whole));
    let noted = Noted::begin(about, operation);
    let bounded = async {
        let answer = tokio::time::timeout(longest, answer).await;
        answer.unwrap_or_else(|_elapsed| Err(failure::timed_out()))
    };
    let answer = runtime::drive(bounded, call.tick);
    let answer = answer.unwrap_or_else(|error| Err(failure::no_resources(&error)));
    noted.end(answer.map_err(|error| match longest < whole {
        // What would have come of it, had the caller waited, is not known.
        true if error.cause() == Some(Cause::CredentialsTimeout) => Reason::KmsTimeout.into(),
        _ => error,
    }))
}

/// Whom STS takes us for: in this Region, or in ours, or in the one that AWS's tools begin with.
///
/// # Errors
/// `endpoint` for a Region that can't be one; `credentials`; what STS fails with.
pub fn own_identity(call: &Call<'_>, region: Option<&str>) -> Result<OwnIdentity> {
    let about = About { key_uri: "", to_key_uri: None, context: None };
    wait_for(call, about, "GetCallerIdentity", async {
        let region = match region {
            Some(region) => environment::named_region(region)?,
            None => environment::default_region().await?,
        };
        CLIENTS
            .call(&call.settings.aws, &region, None, async |made| {
                let identity = identity::identity(made).await?;
                let (credentials, region) = (made.identity.provider(), made.own_region().into());
                Ok(OwnIdentity { identity, credentials, region })
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
