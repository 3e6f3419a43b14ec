//! What a key management service tells of a key.

/// What a key management service tells of a key beyond that it works, as far as it lets us see.
/// Times in seconds since the Unix epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KeyFacts {
    /// The owner scheduled the key's deletion.
    pub deletion_at: Option<i64>,
    /// Imported key material expires.
    pub material_expires_at: Option<i64>,
    /// Whether the service rotates the key by itself.
    pub rotates: Option<bool>,
}
