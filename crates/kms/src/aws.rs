//! AWS KMS through aws-sdk-kms.
//!
//! Least privilege: the server calls `GenerateDataKeyWithoutPlaintext` and `Decrypt`, both always
//! with the key's ARN and the encryption context, and checks the ARN and the length in each answer.
//! A monitor also tries `DescribeKey` and `GetKeyRotationStatus`, and does without them where they
//! are denied. With a role of the tenant's, `AssumeRole` comes first.

mod answer_limit;
mod arn;
mod assumed_role;
mod classify;
mod clients;
mod connect;
mod credentials;
mod endpoint;
mod key;
mod key_arn;
mod lru_map;
mod provider;
pub(crate) mod settings;

pub use provider::Aws;
pub use settings::AwsSettings;
