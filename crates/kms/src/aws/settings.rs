//! Where AWS is, and how long it may take.

use std::time::Duration;

/// Settings of AWS KMS and AWS STS.
#[derive(Clone, Debug)]
pub struct AwsSettings {
    /// `None`: the public endpoint of the key's Region.
    pub kms_endpoint: Option<String>,
    /// `None`: the public endpoint of the key's Region.
    pub sts_endpoint: Option<String>,
    /// Longest time to connect.
    pub connect_timeout: Duration,
    /// Longest time for one attempt of a call.
    pub attempt_timeout: Duration,
    /// Longest time for a call with all its attempts, credentials included.
    pub operation_timeout: Duration,
    /// First attempt included.
    pub max_attempts: u32,
    /// Clients that a process keeps: one per pair of Region and assumed role, with that role's
    /// session.
    pub max_clients: usize,
    /// As whom policies of keys are to name us; `None`: as STS says.
    pub service_principal: Option<String>,
}

impl AwsSettings {
    /// Whether clients made with the one do what clients made with the other do. How many are kept
    /// and how we are called says nothing about a client.
    pub fn connects_as(&self, other: &Self) -> bool {
        let Self {
            kms_endpoint,
            sts_endpoint,
            connect_timeout,
            attempt_timeout,
            operation_timeout,
            max_attempts,
            max_clients: _,
            service_principal: _,
        } = self;
        *kms_endpoint == other.kms_endpoint
            && *sts_endpoint == other.sts_endpoint
            && *connect_timeout == other.connect_timeout
            && *attempt_timeout == other.attempt_timeout
            && *operation_timeout == other.operation_timeout
            && *max_attempts == other.max_attempts
    }
}
