//! Failures, and every way an operation can fail.
//!
//! A [`Reason`] is what programs branch on: it stands in the DETAIL of the SQL error as
//! `reason=key_disabled`. [`Reason::entry`] gives each one its SQLSTATE, its message and its hint
//! in a single exhaustive match. No variant can hold plaintext, key bytes or the text of a foreign
//! error; the only free text is [`Error::info`], which carries identifiers that are safe to log.

mod cause;
mod reason;

pub use cause::Cause;
pub use reason::{Entry, KeyState, Reason, SqlState};

use std::fmt;

/// Nanoseconds of a clock that never goes back and counts while the machine sleeps.
pub type Instant = u64;

/// What everything here returns.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A failure: a reason, whom it concerns, and identifiers that help to find it elsewhere.
///
/// Small enough to be returned in registers, or rather the success that takes its place: a result
/// that goes through memory costs a short value as much as a block of the cipher.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// What programs branch on.
    pub reason: Reason,
    named: Option<Box<Named>>,
}

/// What an error names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Named {
    tenant: Option<Box<str>>,
    info: Option<Box<str>>,
}

const _: () = assert!(size_of::<Result<()>>() == 2 * size_of::<usize>());

impl Error {
    /// A failure that concerns no tenant yet.
    pub fn new(reason: Reason) -> Self {
        Self { reason, named: None }
    }

    /// Names the tenant, unless one is named already or the name is longer than any registered one
    /// can be: an error is no place for a gigabyte.
    #[must_use]
    pub fn for_tenant(mut self, tenant: &str) -> Self {
        const LONGEST: usize = 255;
        if self.tenant().is_none() && tenant.len() <= LONGEST {
            self.named.get_or_insert_default().tenant = Some(tenant.into());
        }
        self
    }

    /// Adds identifiers in `key=value` form, for instance an AWS request id. Never secrets, never
    /// text that came from outside unchecked.
    #[must_use]
    pub fn with_info(mut self, info: impl Into<Box<str>>) -> Self {
        self.named.get_or_insert_default().info = Some(info.into());
        self
    }

    /// The tenant that [`Error::for_tenant`] named.
    pub fn tenant(&self) -> Option<&str> {
        self.named.as_ref()?.tenant.as_deref()
    }

    /// What [`Error::with_info`] added.
    pub fn info(&self) -> Option<&str> {
        self.named.as_ref()?.info.as_deref()
    }

    /// Which layer failed, where that is known.
    pub fn cause(&self) -> Option<Cause> {
        self.info().and_then(|info| Cause::of(self.reason, info))
    }

    /// See [`Reason::concerns_one_process`]. What this process lacks concerns it alone, and a
    /// source of credentials that hangs does so for all.
    pub fn concerns_one_process(&self) -> bool {
        match self.cause() {
            Some(Cause::CredentialsTimeout) => false,
            Some(cause) if cause.concerns_one_process() => true,
            _ => self.reason.concerns_one_process(),
        }
    }

    /// The primary message: lower case, no full stop.
    pub fn message(&self) -> String {
        let text = self.reason.entry().message;
        match self.tenant() {
            Some(tenant) => text.replace('%', &format!("{tenant:?}")),
            None => text.replace(" of tenant %", "").replace(" for tenant %", "").replace(" %", ""),
        }
    }

    /// `reason=NAME tenant=NAME key=value …`: what programs parse.
    pub fn detail(&self) -> String {
        let mut detail = format!("reason={}", self.reason.name());
        if let Some(tenant) = self.tenant() {
            detail += " tenant=";
            detail += &quoted(tenant);
        }
        if let Some(info) = self.info() {
            detail += " ";
            detail += info;
        }
        detail
    }

    /// What to do, in sentences: about the layer that failed, where that is known.
    pub fn hint(&self) -> &'static str {
        self.cause().map_or(self.reason.entry().hint, Cause::hint)
    }
}

/// A tenant's name as it stands in `key=value` lines: quoted if it could pass for another field.
pub fn quoted(tenant: &str) -> String {
    let plain = tenant.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.:@/".contains(&b));
    if plain { tenant.to_owned() } else { format!("{tenant:?}") }
}

impl From<Reason> for Error {
    #[cold]
    fn from(reason: Reason) -> Self {
        Self::new(reason)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.message(), self.detail())
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn names_are_unique_and_resolve_back() {
        let names: HashSet<_> = Reason::ALL.iter().map(|r| r.name()).collect();
        assert_eq!(names.len(), Reason::ALL.len());
        for reason in Reason::ALL {
            assert_eq!(Reason::from_name(reason.name()), Some(*reason));
        }
    }

    #[test]
    fn messages_follow_the_style_of_postgresql() {
        for reason in Reason::ALL {
            let Entry { message, hint, .. } = reason.entry();
            assert!(!message.ends_with('.'), "{message}");
            assert!(
                message.starts_with("KMS") || message.starts_with(char::is_lowercase),
                "{message}"
            );
            assert!(hint.ends_with('.'), "{hint}");
            assert!(!Error::new(*reason).message().contains('%'));
        }
    }

    #[test]
    fn a_cause_is_a_word_with_a_hint_of_its_own() {
        let names: HashSet<_> = Cause::ALL.iter().map(|cause| cause.name()).collect();
        assert_eq!(names.len(), Cause::ALL.len());
        for cause in Cause::ALL {
            assert_eq!(Cause::from_name(cause.name()), Some(*cause));
            assert!(cause.hint().ends_with('.'), "{}", cause.hint());
        }
        let error = |reason, info: &str| Error::new(reason).with_info(info);
        let dns = error(Reason::KmsUnreachable, "cause=dns host=kms.example");
        assert_eq!((dns.cause(), dns.hint()), (Some(Cause::Dns), Cause::Dns.hint()));
        let imds = error(Reason::Credentials, "cause=credentials:imds");
        assert_eq!(imds.cause(), Some(Cause::Credentials));
        // Other reasons have words, and hints, of their own.
        for other in [
            error(Reason::KeyAccessDenied, "cause=assume_role"),
            error(Reason::KmsServerError, "cause=assume_role"),
            error(Reason::KmsUnreachable, "request_id=1 cause=dns"),
            error(Reason::KmsUnreachable, "cause=dnsx"),
        ] {
            assert_eq!((other.cause(), other.hint()), (None, other.reason.entry().hint));
        }
    }

    #[test]
    fn what_a_process_lacks_concerns_it_alone() {
        for (reason, info, alone) in [
            (Reason::KmsUnreachable, "cause=fd", true),
            (Reason::KmsUnreachable, "cause=runtime", true),
            (Reason::KmsUnreachable, "cause=refused", false),
            (Reason::Credentials, "cause=credentials:profile", true),
            (Reason::Credentials, "cause=credentials_timeout provider=imds", false),
            (Reason::Endpoint, "cause=fips", true),
        ] {
            let error = Error::new(reason).with_info(info);
            assert_eq!(error.concerns_one_process(), alone, "{info}");
        }
    }

    #[test]
    fn detail_quotes_names_that_could_forge_another_field() {
        let error =
            Error::new(Reason::KeyDisabled).for_tenant("a reason=x\n").with_info("request_id=1");
        assert_eq!(error.detail(), "reason=key_disabled tenant=\"a reason=x\\n\" request_id=1");
    }
}
