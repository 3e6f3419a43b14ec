//! Key files: 32 bytes in a directory of the server.

use cmk_crypto::key::{KEY_LEN, SecretKey};
use cmk_error::{Error, Reason, Result};
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use zeroize::Zeroizing;

/// The name of a key of the local provider: 1 to 64 of `A-Z a-z 0-9 _ -`, so that it can't leave
/// its directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalName(Box<str>);

impl LocalName {
    /// `None` for anything else.
    pub fn parse(name: &str) -> Option<Self> {
        let valid = (1..=64).contains(&name.len())
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'));
        valid.then(|| Self(name.into()))
    }
}

/// The key in `DIRECTORY/NAME.key`.
///
/// # Errors
/// `key_not_found` where no file is; `local_key_file` for a link, another owner, a mode that lets
/// others read, a wrong size.
pub fn read(directory: &Path, LocalName(name): &LocalName) -> Result<SecretKey> {
    let unusable = |why: &str| Error::new(Reason::LocalKeyFile).with_info(format!("cause={why}"));
    let path = directory.join(format!("{name}.key"));
    // O_NONBLOCK: opening a FIFO must not hang.
    let opened =
        OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path);
    let mut file: File = opened.map_err(|error| match error.kind() {
        ErrorKind::NotFound => Error::new(Reason::KeyNotFound),
        ErrorKind::PermissionDenied => unusable("permission"),
        _ => unusable("not_a_regular_file"),
    })?;
    let metadata = file.metadata().map_err(|_| unusable("not_a_regular_file"))?;
    // SAFETY: geteuid has no preconditions and can't fail.
    let own_user = unsafe { libc::geteuid() };
    if !metadata.is_file() {
        return Err(unusable("not_a_regular_file"));
    } else if metadata.uid() != own_user {
        return Err(unusable("owner"));
    } else if metadata.mode() & 0o177 != 0 {
        return Err(unusable("mode"));
    } else if metadata.len() != KEY_LEN as u64 {
        return Err(unusable("size"));
    }
    let mut key = Zeroizing::new([0; KEY_LEN]);
    file.read_exact(key.as_mut_slice()).map_err(|_| unusable("size"))?;
    SecretKey::from_slice(key.as_slice())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::path::PathBuf;

    struct Directory(PathBuf);

    impl Directory {
        fn new(name: &str) -> Self {
            let path =
                std::env::temp_dir().join(format!("cmk-local-{}-{name}", std::process::id()));
            fs::create_dir_all(&path).unwrap();
            Self(path)
        }

        fn put(&self, name: &str, content: &[u8], mode: u32) {
            let path = self.0.join(format!("{name}.key"));
            fs::write(&path, content).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        }

        fn read(&self, name: &str) -> Result<SecretKey> {
            read(&self.0, &LocalName::parse(name).unwrap())
        }
    }

    impl Drop for Directory {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).unwrap();
        }
    }

    #[test]
    fn refuses_unsafe_key_files() {
        let directory = Directory::new("unsafe");
        assert_eq!(directory.read("absent").unwrap_err().reason, Reason::KeyNotFound);
        directory.put("short", &[7; 31], 0o600);
        directory.put("long", &[7; 33], 0o600);
        directory.put("readable", &[7; 32], 0o644);
        directory.put("good", &[7; 32], 0o400);
        symlink(directory.0.join("good.key"), directory.0.join("link.key")).unwrap();
        fs::create_dir(directory.0.join("folder.key")).unwrap();
        for name in ["short", "long", "readable", "link", "folder"] {
            let error = directory.read(name).unwrap_err();
            assert_eq!(error.reason, Reason::LocalKeyFile, "{name}");
        }
        assert_eq!(directory.read("good").unwrap().expose_secret(), &[7; 32]);
    }

    #[test]
    fn a_name_cannot_leave_the_directory() {
        assert!(LocalName::parse(&"a".repeat(64)).is_some());
        for name in ["", "../acme", "a/b", "a.key", "a\0", "é", &*"a".repeat(65)] {
            assert_eq!(LocalName::parse(name), None, "{name:?}");
        }
    }
}
