//! AWS KMS through aws-sdk-kms.
//!
//! Least privilege: the server calls `GenerateDataKeyWithoutPlaintext` and `Decrypt`, both always
//! with the key's ARN and the encryption context, and checks the ARN and the length in each answer.
//! A monitor also tries `DescribeKey` and `GetKeyRotationStatus`, and does without them where they
//! are denied. With a role of the tenant's, `AssumeRole` comes first. While a tenant moves to
//! another key, `ReEncrypt` or `Encrypt`. Whoever verifies a tenant also tries `GetKeyPolicy` and a
//! `CreateGrant` with `DryRun`, to see that we can't manage the key.

mod arn;
pub mod assumed_role;
pub mod key_arn;

#[cfg(feature = "aws")]
mod answer;
#[cfg(feature = "aws")]
mod answer_limit;
#[cfg(feature = "aws")]
mod classify;
#[cfg(feature = "aws")]
mod clients;
#[cfg(feature = "aws")]
mod connect;
#[cfg(feature = "aws")]
mod connections;
#[cfg(feature = "aws")]
mod credentials;
#[cfg(feature = "aws")]
mod denied_by;
#[cfg(feature = "aws")]
mod describe;
#[cfg(feature = "aws")]
mod endpoint;
#[cfg(feature = "aws")]
mod environment;
#[cfg(feature = "aws")]
mod failure;
#[cfg(feature = "aws")]
mod identity;
#[cfg(feature = "aws")]
mod invalid_state;
#[cfg(feature = "aws")]
mod key;
#[cfg(feature = "aws")]
mod layer;
#[cfg(feature = "aws")]
mod lru_map;
#[cfg(feature = "aws")]
mod management;
#[cfg(feature = "aws")]
mod onboarding;
#[cfg(feature = "aws")]
mod policy;
#[cfg(feature = "aws")]
mod profile;
#[cfg(feature = "aws")]
mod progress;
#[cfg(feature = "aws")]
mod provider;
#[cfg(feature = "aws")]
mod proxy;
#[cfg(feature = "aws")]
mod requests;
#[cfg(feature = "aws")]
mod resolver;
#[cfg(feature = "aws")]
pub(crate) mod settings;
#[cfg(feature = "aws")]
mod sources;
#[cfg(feature = "aws")]
mod trust;
#[cfg(feature = "aws")]
mod watched;
#[cfg(feature = "aws")]
mod web_identity;

#[cfg(feature = "aws")]
pub use provider::Aws;
#[cfg(feature = "aws")]
pub use settings::AwsSettings;
