//! Where the embedded provider looks.

use std::path::PathBuf;

/// Settings of the embedded provider.
#[derive(Clone, Debug, Default)]
pub struct LocalSettings {
    /// The directory of the key files; `None` while the provider is switched off.
    pub directory: Option<PathBuf>,
}
