//! The server's settings, as the providers need them.

#[cfg(feature = "aws")]
use crate::aws::settings::AwsSettings;
#[cfg(feature = "local")]
use crate::local::settings::LocalSettings;

/// One value for the whole server: whoever could change an endpoint or a directory for a session
/// could read data keys.
#[derive(Clone, Debug)]
pub struct Settings {
    /// AWS KMS.
    #[cfg(feature = "aws")]
    pub aws: AwsSettings,
    /// The local provider.
    #[cfg(feature = "local")]
    pub local: LocalSettings,
}
