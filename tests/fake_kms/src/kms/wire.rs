//! The requests, as they come over the wire.

use std::ops::Deref;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::log::EncryptionContext;

/// Bytes that travel as base64.
pub struct Base64(pub Vec<u8>);

impl Deref for Base64 {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl<'de> Deserialize<'de> for Base64 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        BASE64_STANDARD.decode(text).map(Self).map_err(de::Error::custom)
    }
}

impl Serialize for Base64 {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&BASE64_STANDARD.encode(&self.0))
    }
}

/// Whatever a request names, whichever operation it is.
#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Subject {
    pub key_id: Option<String>,
    pub source_key_id: Option<String>,
    pub destination_key_id: Option<String>,
    pub ciphertext_blob: Option<Base64>,
    pub encryption_context: Option<EncryptionContext>,
    pub source_encryption_context: Option<EncryptionContext>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Encrypt {
    pub key_id: Option<String>,
    pub plaintext: Base64,
    #[serde(default)]
    pub encryption_context: EncryptionContext,
    #[serde(default)]
    pub dry_run: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Decrypt {
    pub key_id: Option<String>,
    pub ciphertext_blob: Base64,
    #[serde(default)]
    pub encryption_context: EncryptionContext,
    #[serde(default)]
    pub dry_run: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ReEncrypt {
    pub ciphertext_blob: Base64,
    pub source_key_id: Option<String>,
    #[serde(default)]
    pub source_encryption_context: EncryptionContext,
    pub destination_key_id: Option<String>,
    #[serde(default)]
    pub destination_encryption_context: EncryptionContext,
    #[serde(default)]
    pub dry_run: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct GenerateDataKey {
    pub key_id: Option<String>,
    pub key_spec: Option<String>,
    pub number_of_bytes: Option<usize>,
    #[serde(default)]
    pub encryption_context: EncryptionContext,
    #[serde(default)]
    pub dry_run: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct CreateKey {
    pub key_usage: Option<String>,
    pub key_spec: Option<String>,
    pub origin: Option<String>,
    #[serde(default)]
    pub description: String,
    #[serde(default)]
    pub multi_region: bool,
}

/// A request that names a key and nothing else.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct OneKey {
    pub key_id: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct GetKeyPolicy {
    pub key_id: Option<String>,
    pub policy_name: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct CreateGrant {
    pub key_id: Option<String>,
    pub grantee_principal: Option<String>,
    pub operations: Option<Vec<String>>,
    #[serde(default)]
    pub dry_run: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ScheduleKeyDeletion {
    pub key_id: Option<String>,
    pub pending_window_in_days: Option<u16>,
}
