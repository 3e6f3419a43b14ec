//! Whose certificates are trusted: the system's authorities, or those of `AWS_CA_BUNDLE`.

use super::{endpoint, failure, layer};
use aws_smithy_http_client::tls::TrustStore;
use cmk_error::{Cause, Error, Result};
use data_encoding::BASE64;
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use std::io::{self, Read};

/// Ten times the authorities of a system, in bytes.
const LONGEST: u64 = 4 << 20;

const BUNDLE: &str = "AWS_CA_BUNDLE";

/// What is wrong with the bundle can be said before anybody needs it, short of reading it.
///
/// # Errors
/// `endpoint` for a bundle that is no regular file; `kms_unreachable` if this process lacks what it
/// takes to look.
pub fn check(get: impl Fn(&str) -> Option<String>) -> Result<()> {
    bundle(get).map_or(Ok(()), |path| require_file(&path).map_err(unreadable))
}

/// As AWS's tools do, the bundle takes the place of the system's authorities, which `SSL_CERT_FILE`
/// and `SSL_CERT_DIR` can name. On a system without any, nobody is trusted.
///
/// # Errors
/// `endpoint` for a bundle that can't be read or holds no certificate of an authority;
/// `kms_unreachable` if this process has no descriptor left to look.
pub fn store(get: impl Fn(&str) -> Option<String>) -> Result<TrustStore> {
    match bundle(get) {
        None => of_system(),
        Some(path) => of_bundle(&read(&path).map_err(unreadable)?).ok_or_else(refused),
    }
}

/// The bundle isn't usable.
pub fn refused() -> Error {
    endpoint::refused(Cause::Trust, BUNDLE)
}

fn bundle(get: impl Fn(&str) -> Option<String>) -> Option<String> {
    get(BUNDLE).filter(|path| !path.is_empty())
}

fn unreadable(error: io::Error) -> Error {
    match layer::resources(&error) {
        Some(_) => failure::no_resources(&error),
        None => refused(),
    }
}

/// The client would load them itself, once and for all, be it that it finds none for want of a
/// descriptor.
fn of_system() -> Result<TrustStore> {
    let found = rustls_native_certs::load_native_certs();
    if let Some(error) = found.errors.iter().find(|error| layer::resources(*error).is_some()) {
        return Err(failure::no_resources(error));
    }
    let mut store = TrustStore::empty();
    for certificate in found.certs {
        add(&mut store, &certificate);
    }
    Ok(store)
}

fn require_file(path: &str) -> io::Result<()> {
    match std::fs::metadata(path)?.is_file() {
        true => Ok(()),
        false => Err(io::ErrorKind::InvalidInput.into()),
    }
}

/// A regular file, of a length that fits.
fn read(path: &str) -> io::Result<Vec<u8>> {
    require_file(path)?;
    let mut content = Vec::new();
    std::fs::File::open(path)?.take(LONGEST).read_to_end(&mut content)?;
    Ok(content)
}

fn of_bundle(pem: &[u8]) -> Option<TrustStore> {
    let (mut store, mut is_empty) = (TrustStore::empty(), true);
    for certificate in CertificateDer::pem_slice_iter(pem) {
        is_empty &= !add(&mut store, &certificate.ok()?);
    }
    (!is_empty).then_some(store)
}

/// Adds what can be used, and says whether it is that: the client panics on others.
fn add(store: &mut TrustStore, certificate: &[u8]) -> bool {
    let is_usable = RootCertStore::empty().add(certificate.into()).is_ok();
    if is_usable {
        store.add_pem_certificate(format!(
            "-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n",
            BASE64.encode(certificate)
        ));
    }
    is_usable
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bundle_that_is_none_is_refused() {
        let of = |path: &str| {
            let get = |name: &str| (name == BUNDLE).then(|| path.to_owned());
            let told = |error: Error| error.detail();
            let checked = check(get).map_or_else(told, |()| "taken".to_owned());
            (checked, store(get).map_or_else(told, |_| "taken".to_owned()))
        };
        let (taken, refused) = ("taken", "reason=endpoint cause=trust from=AWS_CA_BUNDLE");
        let is = |checked: &str, read: &str| (checked.to_owned(), read.to_owned());
        assert_eq!(of(""), is(taken, taken));
        for none in ["/nowhere/bundle.pem", "/dev/null", "/etc"] {
            assert_eq!(of(none), is(refused, refused), "{none}");
        }
        let other = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
        assert_eq!(of(other), is(taken, refused));
    }
}
