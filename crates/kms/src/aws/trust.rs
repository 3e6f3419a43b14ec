//! Whose certificates are trusted: the system's authorities, or those of `AWS_CA_BUNDLE`.

use super::{endpoint, failure, layer};
use aws_smithy_http_client::tls::{TlsContext, TrustStore};
use cmk_error::{Cause, Result};
use data_encoding::BASE64;
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use std::io::Read;

/// Ten times the authorities of a system, in bytes.
const LONGEST: u64 = 4 << 20;

const BUNDLE: &str = "AWS_CA_BUNDLE";

/// As AWS's tools do, the bundle takes the place of the system's authorities, which `SSL_CERT_FILE`
/// and `SSL_CERT_DIR` can name. On a system without any, nobody is trusted.
///
/// # Errors
/// `endpoint` for a bundle that can't be read or holds no certificate of an authority;
/// `kms_unreachable` if this process has no descriptor left to look.
pub fn context(get: impl Fn(&str) -> Option<String>) -> Result<TlsContext> {
    let refused = || endpoint::refused(Cause::Trust, BUNDLE);
    let store = match get(BUNDLE).filter(|path| !path.is_empty()) {
        None => of_system()?,
        Some(path) => {
            let pem = read(&path).map_err(|error| match layer::resources(&error) {
                Some(_) => failure::no_resources(&error),
                None => refused(),
            })?;
            of_bundle(&pem).ok_or_else(refused)?
        }
    };
    TlsContext::builder().with_trust_store(store).build().map_err(|_| refused())
}

/// The client would load them itself, once and for all, be it that it finds none for want of a
/// descriptor.
fn of_system() -> Result<TrustStore> {
    let found = rustls_native_certs::load_native_certs();
    if let Some(error) = found.errors.iter().find(|error| layer::resources(*error).is_some()) {
        return Err(failure::no_resources(error));
    }
    let mut trusted = Trusted::default();
    found.certs.iter().for_each(|certificate| trusted.add(certificate));
    Ok(trusted.store)
}

/// A regular file, of a length that fits.
fn read(path: &str) -> std::io::Result<Vec<u8>> {
    if !std::fs::metadata(path)?.is_file() {
        return Err(std::io::ErrorKind::InvalidInput.into());
    }
    let mut content = Vec::new();
    std::fs::File::open(path)?.take(LONGEST).read_to_end(&mut content)?;
    Ok(content)
}

fn of_bundle(pem: &[u8]) -> Option<TrustStore> {
    let mut trusted = Trusted::default();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        trusted.add(&certificate.ok()?);
    }
    (!trusted.known.is_empty()).then_some(trusted.store)
}

/// Those that can be used: the client panics on others.
struct Trusted {
    known: RootCertStore,
    store: TrustStore,
}

impl Default for Trusted {
    fn default() -> Self {
        Self { known: RootCertStore::empty(), store: TrustStore::empty() }
    }
}

impl Trusted {
    fn add(&mut self, certificate: &CertificateDer<'static>) {
        if self.known.add(certificate.clone()).is_ok() {
            self.store.add_pem_certificate(format!(
                "-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n",
                BASE64.encode(certificate)
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bundle_that_is_none_is_refused() {
        let of = |path: &str| {
            let found = context(|name| (name == BUNDLE).then(|| path.to_owned()));
            found.map_or_else(|error| error.detail(), |_| "taken".to_owned())
        };
        let refused = "reason=endpoint cause=trust from=AWS_CA_BUNDLE";
        assert_eq!(of(""), "taken");
        for none in [
            "/nowhere/bundle.pem",
            "/dev/null",
            "/etc",
            concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"),
        ] {
            assert_eq!(of(none), refused, "{none}");
        }
    }
}
