//! Credentials for a token that somebody else's identity provider signed (IRSA and the like).

use aws_credential_types::Credentials;
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{self, ProvideCredentials, future};
use aws_sdk_sts::Client;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// Longest token that STS takes (STS API Reference, AssumeRoleWithWebIdentity), and a line end.
const LONGEST: u64 = 20_000 + 2;

/// A token file, and the role that its token is exchanged for.
#[derive(Debug)]
pub struct WebIdentity {
    /// Asks where, and in which Region, the settings say.
    pub sts: Client,
    /// Which role.
    pub role_arn: String,
    /// Read anew each time: its token is replaced before it expires.
    pub token_file: PathBuf,
    /// How the session is called in the trail.
    pub session_name: String,
}

impl ProvideCredentials for WebIdentity {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::new(self.exchange())
    }
}

impl WebIdentity {
    async fn exchange(&self) -> provider::Result {
        let token = read(&self.token_file).map_err(CredentialsError::provider_error)?;
        let answer = self
            .sts
            .assume_role_with_web_identity()
            .role_arn(&self.role_arn)
            .role_session_name(&self.session_name)
            .web_identity_token(token)
            .send()
            .await
            .map_err(CredentialsError::provider_error)?;
        let given = answer.credentials.ok_or_else(|| CredentialsError::unhandled("no session"))?;
        let expiry = SystemTime::try_from(given.expiration).map_err(CredentialsError::unhandled)?;
        let token = Some(given.session_token);
        let (id, secret) = (given.access_key_id, given.secret_access_key);
        Ok(Credentials::new(id, secret, token, Some(expiry), "WebIdentity"))
    }
}

/// The token in a regular file: nothing that a reader would wait for.
fn read(path: &Path) -> io::Result<String> {
    if !std::fs::metadata(path)?.is_file() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut token = String::new();
    std::fs::File::open(path)?.take(LONGEST).read_to_string(&mut token)?;
    token.truncate(token.trim_end().len());
    if token.is_empty() { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(token) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_in_a_regular_file() {
        let path = std::env::temp_dir().join(format!("cmk_token_{}", std::process::id()));
        std::fs::write(&path, "fake.token\n").unwrap();
        assert_eq!(read(&path).unwrap(), "fake.token");
        std::fs::write(&path, "\n").unwrap();
        read(&path).unwrap_err();
        std::fs::remove_file(&path).unwrap();
        for none in [&*path, Path::new("/dev/null"), Path::new("/dev/zero"), Path::new("/etc")] {
            read(none).unwrap_err();
        }
    }
}
