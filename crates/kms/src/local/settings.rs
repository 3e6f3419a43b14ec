//! Where the local provider looks.

use std::path::PathBuf;

/// Settings of the local provider.
#[derive(Clone, Debug, Default)]
pub struct LocalSettings {
    /// The directory of the key files; `None` while the provider is switched off.
    pub directory: Option<PathBuf>,
}
