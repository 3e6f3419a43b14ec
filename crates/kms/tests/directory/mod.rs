//! A directory of key files for a test, and the local provider on it.

#[cfg(feature = "aws")]
use cmk_kms::aws::AwsSettings;
use cmk_kms::local::LocalSettings;
use cmk_kms::{CustomerKey, Providers, Settings};
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

/// Removed on drop.
pub struct Directory(PathBuf);

impl Directory {
    pub fn new(test: &str) -> Self {
        let path = std::env::temp_dir().join(format!("cmk-{}-{test}", std::process::id()));
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    pub fn put(&self, name: &str, key: &[u8]) {
        let path = self.0.join(format!("{name}.key"));
        let mut file =
            OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).unwrap();
        file.write_all(key).unwrap();
    }

    /// What `work` returns for the local provider on this directory.
    pub fn on<R>(&self, work: impl FnOnce(&Providers<'_>) -> R) -> R {
        on(Some(self.0.clone()), work)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).unwrap();
    }
}

/// What `work` returns for the local provider on this directory; `None` switches it off.
pub fn on<R>(directory: Option<PathBuf>, work: impl FnOnce(&Providers<'_>) -> R) -> R {
    let settings = Settings {
        #[cfg(feature = "aws")]
        aws: AwsSettings {
            kms_endpoint: None,
            sts_endpoint: None,
            connect_timeout: Default::default(),
            attempt_timeout: Default::default(),
            operation_timeout: Default::default(),
            max_attempts: 1,
            max_clients: 1,
            service_principal: None,
        },
        local: LocalSettings { directory },
    };
    work(&Providers { settings: &settings, limit: None, tick: || () })
}

pub fn key(name: &str) -> CustomerKey {
    CustomerKey::parse(&format!("local:{name}"), "{}", 0).unwrap()
}
