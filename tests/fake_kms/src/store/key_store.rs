//! What goes wrong between KMS and a custom key store, in the words of AWS (KMS Developer Guide,
//! "Troubleshooting external key stores").

use serde::Deserialize;

/// The origin of keys in an external key store.
pub const EXTERNAL_KEY_STORE: &str = "EXTERNAL_KEY_STORE";
/// The origin of keys in an AWS CloudHSM key store.
pub const CLOUDHSM: &str = "AWS_CLOUDHSM";

/// Why a key in a custom key store can't be used.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Trouble {
    /// The proxy's own rules forbid it.
    Denied,
    /// The external key is gone.
    KeyNotFound,
    /// The external key was disabled.
    KeyNotEnabled,
    /// The external key was made one for something else.
    KeyUnfit,
    /// The proxy takes us for somebody else.
    Unauthenticated,
    /// The proxy didn't answer in time.
    NoAnswer,
    /// There is no way to the proxy.
    Unreachable,
    /// The proxy says that it is ill.
    Unhealthy,
    /// The proxy's answer makes no sense.
    BadAnswer,
    /// The owner disconnected the key store.
    Disconnected,
}

impl Trouble {
    /// The message of the `KMSInvalidStateException`.
    pub const fn message(self) -> &'static str {
        match self {
            Self::Denied => {
                "The external key store proxy denied access to the operation. Verify that the user \
                 and the external key are both authorized for this operation, and try the request \
                 again."
            }
            Self::KeyNotFound => {
                "The external key store proxy rejected the request because it could not find the \
                 external key."
            }
            Self::KeyNotEnabled => {
                "The external key store proxy rejected the request because the external key is not \
                 enabled in the external key manager."
            }
            Self::KeyUnfit => {
                "The external key store proxy rejected the request because the external key does \
                 not support the requested operation."
            }
            Self::Unauthenticated => {
                "The external key store proxy rejected the request because it could not \
                 authenticate AWS KMS. Verify the credentials for your external key store and \
                 update if necessary."
            }
            Self::NoAnswer => {
                "The external key store proxy did not respond to the request in the time allotted. \
                 Retry the request. If you see this error repeatedly, report it to your external \
                 key store proxy administrator."
            }
            Self::Unreachable => {
                "AWS KMS cannot communicate with the external key store proxy. This might be a \
                 transient networking issue."
            }
            Self::Unhealthy => {
                "The external key store proxy is in an unhealthy state. If you see this message \
                 repeatedly, notify your external key store proxy administrator."
            }
            Self::BadAnswer => {
                "AWS KMS cannot interpret the response from the external key store proxy."
            }
            Self::Disconnected => "The custom key store that holds this key is not connected.",
        }
    }
}
