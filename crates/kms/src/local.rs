//! The embedded provider, `local:NAME`: a key file a name, for development and demonstrations.
//!
//! ```text
//! key file     DIRECTORY/NAME.key, exactly 32 bytes, owned by the server's user, mode 0600 or 0400
//! wrapped DEK  0x01 ‖ nonce[24] ‖ XAES-256-GCM(key file, nonce, aad = canonical JSON of the context, DEK)
//! ```
//!
//! Same trait, same reasons and same binding to the encryption context as AWS. Taking the file away is
//! what disabling a key is there.

use super::{Custody, Kms};
use crate::context::EncryptionContext;
use crate::key_uri::{KeyUri, LocalName};
use cmk_crypto::aead::{Cipher, TAG_LEN};
use cmk_crypto::key::{KEY_LEN, SecretKey};
use cmk_crypto::nonce::NONCE_LEN;
use cmk_error::{Error, Reason, Result};
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

const VERSION: u8 = 1;
const BODY_AT: usize = 1 + NONCE_LEN;
const WRAPPED_LEN: usize = BODY_AT + KEY_LEN + TAG_LEN;

/// The keys of one directory.
pub struct LocalKms {
    /// `None` while the provider is switched off.
    pub directory: Option<PathBuf>,
}

impl Kms for LocalKms {
    fn generate(&self, custody: &Custody, context: &EncryptionContext<'_>) -> Result<Vec<u8>> {
        let cipher = self.cipher(custody)?;
        let dek = SecretKey::generate()?;
        let mut wrapped = vec![0; WRAPPED_LEN];
        wrapped[0] = VERSION;
        let mut nonce = [0; NONCE_LEN];
        getrandom::fill(&mut nonce).map_err(|_| Reason::SystemRandom)?;
        wrapped[1..BODY_AT].copy_from_slice(&nonce);
        let (body, tag) = wrapped[BODY_AT..].split_at_mut(KEY_LEN);
        let aad = context.to_canonical_json();
        tag.copy_from_slice(&cipher.seal(&nonce, &aad, dek.expose_secret(), body)?);
        Ok(wrapped)
    }

    fn unwrap(
        &self,
        custody: &Custody,
        wrapped: &[u8],
        context: &EncryptionContext<'_>,
    ) -> Result<SecretKey> {
        let rejected = || Error::new(Reason::WrappedKeyRejected);
        let cipher = self.cipher(custody)?;
        let (&version, rest) = wrapped.split_first().ok_or_else(rejected)?;
        let (nonce, rest) = rest.split_first_chunk().ok_or_else(rejected)?;
        let (body, tag) = rest.split_last_chunk().ok_or_else(rejected)?;
        if version != VERSION || body.len() != KEY_LEN {
            return Err(rejected());
        }
        let mut dek = Zeroizing::new([0; KEY_LEN]);
        cipher
            .open(nonce, &context.to_canonical_json(), body, tag, dek.as_mut_slice())
            .map_err(|_| rejected())?;
        SecretKey::from_slice(dek.as_slice())
    }
}

impl LocalKms {
    fn cipher(&self, custody: &Custody) -> Result<Cipher> {
        let KeyUri::Local(name) = &custody.key else { return Err(Reason::KeyUri.into()) };
        let directory = self.directory.as_deref().ok_or(Reason::LocalKeysOff)?;
        Ok(Cipher::new(&read_key(directory, name)?))
    }
}

/// # Errors
/// `key_not_found` where no file is; `local_key_file` for a link, another owner, a mode that lets
/// others read, a wrong size.
fn read_key(directory: &Path, name: &LocalName) -> Result<SecretKey> {
    let unusable = |why: &str| Error::new(Reason::LocalKeyFile).with_info(format!("cause={why}"));
    let path = directory.join(format!("{}.key", name.as_str()));
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

        fn unwrap_reason(&self, name: &str) -> Reason {
            let kms = LocalKms { directory: Some(self.0.clone()) };
            let wrapped = [0; WRAPPED_LEN];
            kms.unwrap(&custody(name), &wrapped, &EncryptionContext::data_key("acme"))
                .unwrap_err()
                .reason
        }
    }

    impl Drop for Directory {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).unwrap();
        }
    }

    fn custody(name: &str) -> Custody {
        Custody { key: KeyUri::parse(&format!("local:{name}")).unwrap(), role: None }
    }

    #[test]
    fn unwraps_what_it_wrapped_under_the_same_context_only() {
        let directory = Directory::new("roundtrip");
        directory.put("acme", &[7; 32], 0o600);
        directory.put("other", &[8; 32], 0o600);
        let kms = LocalKms { directory: Some(directory.0.clone()) };
        let (acme, globex) =
            (EncryptionContext::data_key("acme"), EncryptionContext::data_key("globex"));
        let wrapped = kms.generate(&custody("acme"), &acme).unwrap();
        kms.unwrap(&custody("acme"), &wrapped, &acme).unwrap();
        for (name, context) in [("acme", &globex), ("other", &acme)] {
            let error = kms.unwrap(&custody(name), &wrapped, context).unwrap_err();
            assert_eq!(error.reason, Reason::WrappedKeyRejected);
        }
    }

    #[test]
    fn refuses_unsafe_key_files() {
        let directory = Directory::new("unsafe");
        assert_eq!(directory.unwrap_reason("absent"), Reason::KeyNotFound);
        directory.put("short", &[7; 31], 0o600);
        directory.put("long", &[7; 33], 0o600);
        directory.put("readable", &[7; 32], 0o644);
        directory.put("good", &[7; 32], 0o400);
        symlink(directory.0.join("good.key"), directory.0.join("link.key")).unwrap();
        fs::create_dir(directory.0.join("folder.key")).unwrap();
        for name in ["short", "long", "readable", "link", "folder"] {
            assert_eq!(directory.unwrap_reason(name), Reason::LocalKeyFile, "{name}");
        }
        assert_eq!(directory.unwrap_reason("good"), Reason::WrappedKeyRejected);
    }

    #[test]
    fn does_nothing_while_switched_off() {
        let kms = LocalKms { directory: None };
        let error = kms.generate(&custody("acme"), &EncryptionContext::data_key("acme"));
        assert_eq!(error.unwrap_err().reason, Reason::LocalKeysOff);
    }
}
