//! From what a request failed with to the layer that failed: by the types of the errors in the
//! chain, never by their text.

use crate::resources;
use aws_smithy_runtime_api::client::dns::ResolveDnsError;
use aws_smithy_runtime_api::client::result::ConnectorError;
use cmk_error::Cause;
use std::error::Error as StdError;
use std::io;

/// An error and those that it comes from. What an `io::Error` wraps is one of them: its own
/// `source` skips it.
pub fn chain<'a>(
    error: &'a (dyn StdError + 'static),
) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    std::iter::successors(Some(error), |&error| match error.downcast_ref::<io::Error>() {
        Some(io) => io.get_ref().map(|inner| inner as &(dyn StdError + 'static)),
        None => error.source(),
    })
}

/// The first of a type in the chain.
pub fn find<'a, E: StdError + 'static>(error: &'a (dyn StdError + 'static)) -> Option<&'a E> {
    chain(error).find_map(<dyn StdError>::downcast_ref)
}

/// What a connection, or the exchange on it, failed with. `by_proxy`: it goes through one.
pub fn of(error: &(dyn StdError + 'static), by_proxy: bool) -> Cause {
    if let Some(cause) = resources(error) {
        return cause;
    }
    let connecting = find::<hyper_util::client::legacy::Error>(error)
        .is_some_and(hyper_util::client::legacy::Error::is_connect);
    if let Some(error) = find::<rustls::Error>(error) {
        return of_tls(error);
    }
    if find::<ConnectorError>(error).is_some_and(ConnectorError::is_timeout) {
        return if by_proxy { Cause::Proxy } else { Cause::TimeoutConnect };
    }
    if by_proxy && connecting {
        return Cause::Proxy;
    }
    if find::<ResolveDnsError>(error).is_some() {
        return Cause::Dns;
    }
    match find::<io::Error>(error).map(io::Error::kind) {
        // A server that hangs up in the middle of a handshake.
        Some(io::ErrorKind::UnexpectedEof) if connecting => Cause::Tls,
        Some(io::ErrorKind::TimedOut) => Cause::TimeoutConnect,
        Some(io::ErrorKind::ConnectionReset) => Cause::Reset,
        // Refused by the host, or by the network on the way to it.
        Some(_) if connecting => Cause::Refused,
        _ => Cause::Reset,
    }
}

/// Whether it is this process that has no descriptor, thread or memory left.
pub fn resources(error: &(dyn StdError + 'static)) -> Option<Cause> {
    let mut codes = chain(error)
        .filter_map(|error| error.downcast_ref::<io::Error>())
        .filter_map(io::Error::raw_os_error);
    codes.find_map(resources::lacking)
}

fn of_tls(error: &rustls::Error) -> Cause {
    match error {
        rustls::Error::InvalidCertificate(_) | rustls::Error::NoCertificatesPresented => {
            Cause::Trust
        }
        _ => Cause::Tls,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustls::CertificateError;

    fn cause(error: impl StdError + Send + Sync + 'static) -> Cause {
        of(&error, false)
    }

    #[test]
    fn what_an_io_error_wraps_is_looked_at() {
        let untrusted = rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer);
        let wrapped = io::Error::new(io::ErrorKind::InvalidData, untrusted);
        assert_eq!(cause(io::Error::other(wrapped)), Cause::Trust);
        let alert = rustls::Error::AlertReceived(rustls::AlertDescription::HandshakeFailure);
        assert_eq!(cause(io::Error::other(alert)), Cause::Tls);
    }

    #[test]
    fn resources_come_before_what_they_were_for() {
        let lookup = |code| ResolveDnsError::new(io::Error::from_raw_os_error(code));
        assert_eq!(cause(lookup(libc::EMFILE)), Cause::Fd);
        assert_eq!(cause(lookup(libc::EAGAIN)), Cause::Runtime);
        assert_eq!(cause(lookup(libc::ENOENT)), Cause::Dns);
        assert_eq!(cause(ConnectorError::timeout("late".into())), Cause::TimeoutConnect);
        assert_eq!(of(&ConnectorError::timeout("late".into()), true), Cause::Proxy);
    }
}
