//! What AWS KMS does with a key.

use super::assumed_role::AssumedRole;
use super::classify::classify;
use super::clients::CLIENTS;
use super::key_arn::KeyArn;
use crate::context::EncryptionContext;
use crate::key_facts::KeyFacts;
use crate::provider::{Call, ProviderKey};
use crate::runtime;
use aws_sdk_kms::Client;
use aws_sdk_kms::primitives::Blob;
use aws_sdk_kms::types::OriginType;
use cmk_crypto::key::{KEY_LEN, SecretKey};
use cmk_error::{Error, Reason, Result};
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
        self.wait(call, async |client| {
            let answer = client
                .generate_data_key_without_plaintext()
                .key_id(self.arn.as_str())
                .number_of_bytes(KEY_LEN as i32)
                .set_encryption_context(Some(owned(context)))
                .send()
                .await
                .map_err(|error| classify(&error))?;
            self.check_key_id(answer.key_id())?;
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
        call: &Call<'_>,
        wrapped: &[u8],
        context: &EncryptionContext<'_>,
    ) -> Result<SecretKey> {
        self.wait(call, async |client| {
            let answer = client
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

    /// Takes `kms:DescribeKey` and `kms:GetKeyRotationStatus`, either of which the owner may
    /// withhold.
    fn describe(&self, call: &Call<'_>) -> Result<KeyFacts> {
        let arn = self.arn.as_str();
        self.wait(call, async |client| {
            // In this order: KMS says "off" for keys that can't rotate, imported ones and those
            // about to be deleted. A deletion that is scheduled in between is seen below.
            let rotation = client.get_key_rotation_status().key_id(arn).send().await;
            let described = client.describe_key().key_id(arn).send().await;
            let described = described.map_err(|error| classify(&error))?;
            let Some(key) = described.key_metadata else { return Ok(KeyFacts::default()) };
            let rotatable = key.origin == Some(OriginType::AwsKms) && key.deletion_date.is_none();
            Ok(KeyFacts {
                deletion_at: key.deletion_date.map(|at| at.secs()),
                material_expires_at: key.valid_to.map(|at| at.secs()),
                rotates: rotation.ok().map(|it| it.key_rotation_enabled).filter(|_| rotatable),
            })
        })
    }

    fn assumes_role(&self) -> bool {
        self.role.is_some()
    }
}

impl AwsKey {
    /// Makes a request with the operation timeout over everything in it, client set-up and
    /// credentials included.
    fn wait<R>(&self, call: &Call<'_>, request: impl AsyncFn(&Client) -> Result<R>) -> Result<R> {
        let settings = &call.settings.aws;
        let longest = settings.operation_timeout;
        let longest = call.limit.map_or(longest, |limit| limit.min(longest));
        let answer = CLIENTS.call(settings, self.arn.region(), self.role.as_ref(), request);
        let bounded = async {
            let answer = tokio::time::timeout(longest, answer).await;
            answer.unwrap_or_else(|_elapsed| Err(Reason::KmsTimeout.into()))
        };
        runtime::drive(bounded, call.tick)
            .map_err(|_| Error::new(Reason::KmsUnreachable).with_info(Error::OWN_RESOURCES))?
    }

    /// KMS says which key it used; anything but the one we named is somebody else's answer.
    fn check_key_id(&self, answered: Option<&str>) -> Result<()> {
        match answered == Some(self.arn.as_str()) {
            true => Ok(()),
            false => Err(Reason::KmsAnswerMismatch.into()),
        }
    }
}

fn owned(context: &EncryptionContext<'_>) -> HashMap<String, String> {
    context.pairs().map(|(key, value)| (key.to_owned(), value.to_owned())).into()
}
