//! The local provider, `local:NAME`: one key file per name, for development and demonstrations.
//!
//! ```text
//! key file     DIRECTORY/NAME.key, exactly 32 bytes, owned by the server's user, mode 0600 or 0400
//! wrapped DEK  see [`wrapped`], bound to the canonical JSON of the encryption context
//! ```
//!
//! Same trait, same reasons and same binding to the encryption context as AWS. Taking the file away
//! is what disabling a key is there.

mod key_file;
mod provider;
pub(crate) mod settings;
pub mod wrapped;

pub use provider::Local;
pub use settings::LocalSettings;
