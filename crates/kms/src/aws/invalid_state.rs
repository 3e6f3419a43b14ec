//! `KMSInvalidStateException`: what the state of a key, or its key store, says in words only.
//!
//! It is the answer for keys that are pending something, and for all that goes wrong between KMS
//! and a custom key store (KMS Developer Guide, "Key states of AWS KMS keys" and "Troubleshooting
//! external key stores"). What an owner decided is a revocation; what fails on the way to the
//! owner's key store is an outage, because it ends without anybody's decision.

use cmk_error::Reason;

/// What a message says: a part of it as [`squeezed`], what it means, and a word for DETAIL.
struct Saying(&'static str, Reason, Option<&'static str>);

/// The first that matches decides.
const SAYINGS: &[Saying] = &[
    // External key stores: the proxy's answers, in the words of the guide.
    Saying("proxydeniedaccess", Reason::KeyAccessDenied, Some("denied")),
    Saying("couldnotfindtheexternalkey", Reason::KeyNotFound, Some("key_not_found")),
    Saying("externalkeyisnotenabled", Reason::KeyDisabled, Some("key_not_enabled")),
    Saying("externalkeydoesnotsupport", Reason::KeyInvalidState, Some("key_unfit")),
    Saying(
        "specifiedciphertextoradditionalauthenticateddata",
        Reason::WrappedKeyRejected,
        Some("bad_ciphertext"),
    ),
    Saying("proxysubmittedfordecryption", Reason::KmsServerError, Some("bad_answer")),
    Saying("couldnotauthenticate", Reason::KmsServerError, Some("unauthenticated")),
    Saying("didnotrespond", Reason::KmsServerError, Some("no_answer")),
    Saying("cannotcommunicate", Reason::KmsServerError, Some("unreachable")),
    Saying("cannotinterprettheresponse", Reason::KmsServerError, Some("bad_answer")),
    Saying("unhealthystate", Reason::KmsServerError, Some("unhealthy")),
    // Any custom key store.
    Saying("notconnected", Reason::KmsServerError, Some("disconnected")),
    Saying("disconnected", Reason::KmsServerError, Some("disconnected")),
    Saying("isunavailable", Reason::KmsServerError, Some("disconnected")),
    Saying("externalkeystoreproxy", Reason::KmsServerError, Some("failed")),
    // The key itself.
    Saying("pendingdeletion", Reason::KeyPendingDeletion, None),
    Saying("pendingreplicadeletion", Reason::KeyPendingDeletion, None),
    Saying("disabled", Reason::KeyDisabled, None),
    Saying("pendingimport", Reason::KeyInvalidState, None),
];

/// What the message means. Creating and updating pass by themselves: an outage, as is what nobody
/// has heard of.
pub fn reason(message: &str) -> Reason {
    saying(message).map_or(Reason::KmsServerError, |Saying(_, reason, _)| *reason)
}

/// What the owner's key store did, in a word, if it is about that.
pub fn key_store(message: &str) -> Option<&'static str> {
    saying(message)?.2
}

fn saying(message: &str) -> Option<&'static Saying> {
    let message = squeezed(message);
    SAYINGS.iter().find(|Saying(part, ..)| message.contains(part))
}

/// Its letters, small: "PendingDeletion" and "is pending deletion" are the same.
fn squeezed(message: &str) -> String {
    let letters = message.chars().filter(char::is_ascii_alphabetic);
    letters.map(|letter| letter.to_ascii_lowercase()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ARN: &str = "arn:aws:kms:us-east-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab";

    #[test]
    fn what_the_owner_decided_is_told_from_what_fails_by_itself() {
        use Reason::*;
        for (message, expected) in [
            ("is pending deletion.", KeyPendingDeletion),
            ("is pending replica deletion.", KeyPendingDeletion),
            ("is pending import.", KeyInvalidState),
            ("is disabled.", KeyDisabled),
            ("is in state PendingReplicaDeletion", KeyPendingDeletion),
            ("is creating.", KmsServerError),
            ("is in state Updating", KmsServerError),
            ("is unavailable.", KmsServerError),
            ("", KmsServerError),
        ] {
            assert_eq!(reason(&format!("{ARN} {message}")), expected, "{message}");
        }
    }

    /// The texts of the KMS Developer Guide, "Troubleshooting external key stores".
    #[test]
    fn an_external_key_store_says_whose_act_it_was() {
        use Reason::*;
        const REJECTED: &str = "The external key store proxy rejected the request because";
        for (message, expected, word) in [
            (
                "The external key store proxy denied access to the operation. Verify that the user \
                 and the external key are both authorized for this operation, and try the request \
                 again."
                    .into(),
                KeyAccessDenied,
                "denied",
            ),
            (
                format!("{REJECTED} it could not find the external key."),
                KeyNotFound,
                "key_not_found",
            ),
            (
                format!("{REJECTED} the external key is not enabled in the external key manager."),
                KeyDisabled,
                "key_not_enabled",
            ),
            (
                format!("{REJECTED} the external key does not support the requested operation."),
                KeyInvalidState,
                "key_unfit",
            ),
            (
                format!(
                    "{REJECTED} the specified ciphertext or additional authenticated data is \
                     corrupted, missing, or otherwise invalid."
                ),
                WrappedKeyRejected,
                "bad_ciphertext",
            ),
            (
                "The ciphertext that the external key store proxy submitted for decryption, or the \
                 encryption context, is corrupted, missing, or otherwise invalid."
                    .into(),
                KmsServerError,
                "bad_answer",
            ),
            (
                format!("{REJECTED} it could not authenticate AWS KMS. Verify the credentials."),
                KmsServerError,
                "unauthenticated",
            ),
            (
                format!("{REJECTED} it does not support the requested cryptographic operation."),
                KmsServerError,
                "failed",
            ),
            (
                "The external key store proxy did not respond to the request in the time allotted. \
                 Retry the request."
                    .into(),
                KmsServerError,
                "no_answer",
            ),
            (
                "AWS KMS rejected the request because the external key store proxy did not respond \
                 in time."
                    .into(),
                KmsServerError,
                "no_answer",
            ),
            (
                "AWS KMS cannot communicate with the external key store proxy. This might be a \
                 transient networking issue."
                    .into(),
                KmsServerError,
                "unreachable",
            ),
            (
                "AWS KMS cannot interpret the response from the external key store proxy.".into(),
                KmsServerError,
                "bad_answer",
            ),
            (
                "The external key store proxy is in an unhealthy state.".into(),
                KmsServerError,
                "unhealthy",
            ),
            (
                format!("{ARN} is unavailable because its key store is not connected."),
                KmsServerError,
                "disconnected",
            ),
            (
                "The custom key store is disconnected.".to_owned(),
                KmsServerError,
                "disconnected",
            ),
        ] {
            assert_eq!(reason(&message), expected, "{message}");
            assert_eq!(key_store(&message), Some(word), "{message}");
        }
        assert_eq!(key_store(&format!("{ARN} is pending import.")), None);
    }
}
