//! AWS KMS through aws-sdk-kms.
//!
//! Least privilege: the server calls `GenerateDataKeyWithoutPlaintext` and `Decrypt`, both always with
//! the key's ARN and the encryption context, and checks the ARN and the length in each answer. A monitor
//! also tries `DescribeKey` and `GetKeyRotationStatus`, and does without them where they are denied.

mod answer_limit;
mod classify;
mod clients;
mod credentials;

pub use clients::{AwsSettings, Clients};

use super::{Custody, KeyFacts, Kms};
use crate::context::EncryptionContext;
use crate::key_uri::{KeyArn, KeyUri};
use crate::runtime;
use aws_sdk_kms::Client;
use aws_sdk_kms::primitives::Blob;
use aws_sdk_kms::types::OriginType;
use cmk_crypto::key::{KEY_LEN, SecretKey};
use cmk_error::{Error, Reason, Result};
use std::collections::HashMap;
use std::time::Duration;
use zeroize::Zeroizing;

/// Longest wrapped data key that KMS takes (KMS API Reference, Decrypt, `CiphertextBlob`), in bytes.
const WRAPPED_MAX: usize = 6144;

/// KMS as seen for the length of a call.
pub struct AwsKms<'a> {
    pub clients: &'a Clients,
    pub settings: AwsSettings,
    /// The caller's own limit, should it be sooner than the operation timeout.
    pub limit: Option<Duration>,
    /// Called every few tens of milliseconds while waiting; may unwind to cancel.
    pub tick: fn(),
}

impl Kms for AwsKms<'_> {
    fn generate(&self, custody: &Custody, context: &EncryptionContext<'_>) -> Result<Vec<u8>> {
        let arn = key_arn(custody)?;
        self.wait(custody, async |client| {
            let answer = client
                .generate_data_key_without_plaintext()
                .key_id(arn.as_str())
                .number_of_bytes(KEY_LEN as i32)
                .set_encryption_context(Some(owned(context)))
                .send()
                .await
                .map_err(|error| classify::classify(&error))?;
            check_key_id(arn, answer.key_id())?;
            let wrapped = answer.ciphertext_blob.map(Blob::into_inner).unwrap_or_default();
            if (1..=WRAPPED_MAX).contains(&wrapped.len()) {
                Ok(wrapped)
            } else {
                Err(Reason::KmsAnswerMismatch.into())
            }
        })
    }

    fn unwrap(
        &self,
        custody: &Custody,
        wrapped: &[u8],
        context: &EncryptionContext<'_>,
    ) -> Result<SecretKey> {
        let arn = key_arn(custody)?;
        self.wait(custody, async |client| {
            let answer = client
                .decrypt()
                .key_id(arn.as_str())
                .ciphertext_blob(Blob::new(wrapped))
                .set_encryption_context(Some(owned(context)))
                .send()
                .await
                .map_err(|error| classify::classify(&error))?;
            check_key_id(arn, answer.key_id())?;
            let plaintext = answer.plaintext.map(Blob::into_inner).unwrap_or_default();
            SecretKey::from_slice(&Zeroizing::new(plaintext))
        })
    }

    /// Takes `kms:DescribeKey` and `kms:GetKeyRotationStatus`, either of which the owner may withhold.
    fn describe(&self, custody: &Custody) -> Result<KeyFacts> {
        let arn = key_arn(custody)?;
        self.wait(custody, async |client| {
            let described = client.describe_key().key_id(arn.as_str()).send().await;
            let described = described.map_err(|error| classify::classify(&error));
            let rotation = client.get_key_rotation_status().key_id(arn.as_str()).send().await;
            let Some(key) = described?.key_metadata else { return Ok(KeyFacts::default()) };
            // KMS says "off" for keys that can't rotate: imported ones, and those about to be deleted.
            let rotatable = key.origin == Some(OriginType::AwsKms) && key.deletion_date.is_none();
            Ok(KeyFacts {
                deletion_at: key.deletion_date.map(|at| at.secs()),
                material_expires_at: key.valid_to.map(|at| at.secs()),
                rotates: rotation.ok().map(|it| it.key_rotation_enabled).filter(|_| rotatable),
            })
        })
    }
}

impl AwsKms<'_> {
    /// Runs a call with the operation timeout over everything in it, client set-up and credentials
    /// included.
    fn wait<R>(&self, custody: &Custody, call: impl AsyncFn(&Client) -> Result<R>) -> Result<R> {
        let (settings, region) = (&self.settings, key_arn(custody)?.region());
        let call = self.clients.call(settings, region, custody.role.as_ref(), call);
        let longest = settings.operation_timeout;
        let longest = self.limit.map_or(longest, |limit| limit.min(longest));
        let bounded = async {
            let answer = tokio::time::timeout(longest, call).await;
            answer.unwrap_or_else(|_elapsed| Err(Reason::KmsTimeout.into()))
        };
        runtime::drive(bounded, self.tick)
            .map_err(|_| Error::new(Reason::KmsUnreachable).with_info(Error::OWN_RESOURCES))?
    }
}

fn key_arn(custody: &Custody) -> Result<&KeyArn> {
    match &custody.key {
        KeyUri::Aws(arn) => Ok(arn),
        KeyUri::Local(_) => Err(Reason::KeyUri.into()),
    }
}

fn owned(context: &EncryptionContext<'_>) -> HashMap<String, String> {
    context.pairs().map(|(key, value)| (key.to_owned(), value.to_owned())).into()
}

/// KMS says which key it used; anything but the one we named is somebody else's answer.
fn check_key_id(arn: &KeyArn, answered: Option<&str>) -> Result<()> {
    if answered == Some(arn.as_str()) { Ok(()) } else { Err(Reason::KmsAnswerMismatch.into()) }
}
