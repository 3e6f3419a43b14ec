//! AWS KMS through aws-sdk-kms.
//!
//! Least privilege: the server calls `GenerateDataKeyWithoutPlaintext` and `Decrypt`, both always
//! with the key's ARN and the encryption context, and checks the ARN and the length in each answer.
//! A monitor also tries `DescribeKey` and `GetKeyRotationStatus`, and does without them where they
//! are denied. With a role of the tenant's, `AssumeRole` comes first.

mod arn;
pub mod assumed_role;
pub mod key_arn;

#[cfg(feature = "aws")]
mod answer_limit;
#[cfg(feature = "aws")]
mod classify;
#[cfg(feature = "aws")]
mod clients;
#[cfg(feature = "aws")]
mod connect;
#[cfg(feature = "aws")]
mod credentials;
#[cfg(feature = "aws")]
mod endpoint;
#[cfg(feature = "aws")]
mod key;
#[cfg(feature = "aws")]
mod lru_map;
#[cfg(feature = "aws")]
mod provider;
#[cfg(feature = "aws")]
pub(crate) mod settings;

#[cfg(feature = "aws")]
pub use provider::Aws;
#[cfg(feature = "aws")]
pub use settings::AwsSettings;
