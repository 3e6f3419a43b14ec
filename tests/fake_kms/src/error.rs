//! The errors of the AWS APIs, with the codes, status lines and message forms of AWS.

/// An error answer; the protocol in use decides how it is written.
#[derive(Clone, Debug)]
pub struct ApiError {
    pub status: u16,
    pub code: String,
    pub message: String,
}

impl ApiError {
    pub fn new(status: u16, code: &str, message: impl Into<String>) -> Self {
        Self { status, code: code.to_owned(), message: message.into() }
    }

    pub fn validation(message: impl Into<String>) -> Self {
        Self::new(400, "ValidationException", message)
    }

    /// The body is not of the shape that the operation takes.
    pub fn serialization(error: &serde_json::Error) -> Self {
        Self::new(400, "SerializationException", error.to_string())
    }

    pub fn access_denied(message: impl Into<String>) -> Self {
        Self::new(400, "AccessDeniedException", message)
    }

    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(400, "NotFoundException", message)
    }

    pub fn no_such_key(arn: &str) -> Self {
        Self::not_found(format!("Key '{arn}' does not exist"))
    }

    pub fn invalid_state(message: impl Into<String>) -> Self {
        Self::new(400, "KMSInvalidStateException", message)
    }

    pub fn unsupported(message: impl Into<String>) -> Self {
        Self::new(400, "UnsupportedOperationException", message)
    }

    /// AWS says nothing about why a ciphertext was refused, not even in the message.
    pub fn invalid_ciphertext() -> Self {
        Self::new(400, "InvalidCiphertextException", "")
    }

    pub fn incorrect_key() -> Self {
        let message =
            "The key ID in the request does not identify a CMK that can perform this operation.";
        Self::new(400, "IncorrectKeyException", message)
    }

    pub fn dry_run() -> Self {
        let message = "The request would have succeeded, but the DryRun option is set.";
        Self::new(412, "DryRunOperationException", message)
    }

    pub fn missing_authentication() -> Self {
        Self::new(400, "MissingAuthenticationTokenException", "Missing Authentication Token")
    }

    pub fn unrecognized_client() -> Self {
        let message = "The security token included in the request is invalid.";
        Self::new(400, "UnrecognizedClientException", message)
    }

    /// KMS and STS have different codes for it.
    pub fn unknown_access_key(service: &str) -> Self {
        match service {
            "sts" => Self {
                status: 403,
                code: "InvalidClientTokenId".into(),
                ..Self::unrecognized_client()
            },
            _ => Self::unrecognized_client(),
        }
    }
}
