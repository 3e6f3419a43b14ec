//! Which layer of a call to a key management service failed.

use crate::reason::Reason;

macro_rules! causes {
    ($($(#[$doc:meta])* $variant:ident = $name:literal, $hint:literal;)*) => {
        /// The word after `cause=` in the DETAIL of an error about the way to a key. Names are
        /// stable: they are part of the SQL interface.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Cause { $($(#[$doc])* #[doc = $hint] $variant,)* }

        impl Cause {
            /// Every cause, in the order of the table.
            pub const ALL: &'static [Cause] = &[$(Cause::$variant,)*];

            /// As it stands in DETAIL. [`Cause::Credentials`] is followed by a colon and the
            /// provider of credentials.
            pub const fn name(self) -> &'static str {
                match self { $(Cause::$variant => $name,)* }
            }

            /// What to do, in sentences.
            pub const fn hint(self) -> &'static str {
                match self { $(Cause::$variant => $hint,)* }
            }
        }
    };
}

causes! {
    Dns = "dns",
        "The name in host= was not resolved: check the server's resolver, a VPC's DNS settings, and the endpoint settings.";
    Refused = "refused",
        "Nothing accepts connections at host=, or the network lets none through: check the endpoint settings, security groups, firewalls and routes.";
    Reset = "reset",
        "The connection to host= broke before the answer was complete: check what stands between this server and host=.";
    Tls = "tls",
        "The TLS handshake with host= failed: check that host= speaks TLS 1.2 or 1.3, and what stands between.";
    Trust = "trust",
        "The certificate of host= is not trusted: install ca-certificates, or name the authority's certificates in AWS_CA_BUNDLE or SSL_CERT_FILE in the server's environment; a proxy that opens TLS has an authority of its own.";
    Proxy = "proxy",
        "The proxy in host= could not be used: check HTTPS_PROXY and NO_PROXY in the server's environment, its user and password, and whether it lets connections to KMS and STS through.";
    TimeoutConnect = "timeout_connect",
        "No connection to host= in time: check security groups, firewalls, routes and VPC endpoints; the limit is cmk_encrypt.kms_connect_timeout.";
    TimeoutResponse = "timeout_response",
        "host= accepted the connection and did not answer in time; the limits are cmk_encrypt.kms_attempt_timeout and cmk_encrypt.kms_operation_timeout.";
    Credentials = "credentials",
        "The provider of credentials that cause= names gave none: look at what it reads or asks. imds is asked where nothing else is configured. docs/aws.md lists what may be set for the server, and where.";
    CredentialsTimeout = "credentials_timeout",
        "The provider of credentials in provider= did not answer in time. For imds in a container, the instance's metadata hop limit has to be 2 or more; for others check the network path to host=.";
    Endpoint = "endpoint",
        "The endpoint or the Region that from= names is not usable: endpoints are https URLs, or http URLs of a loopback address, and may hold {region}.";
    Fips = "fips",
        "FIPS endpoints were asked for (AWS_USE_FIPS_ENDPOINT or the profile) and can't be had together with an endpoint URL, or the value is neither true nor false: give up one of the two.";
    UnsupportedProfile = "unsupported_profile",
        "The AWS profile takes its credentials from a program or a login (credential_process, SSO, login_session), which a database server does not run: use an instance profile, web identity, a role or keys.";
    WebIdentity = "web_identity",
        "No credentials for the web identity token: check the token file, AWS_ROLE_ARN, the trust policy of that role, and the path to STS in host=.";
    AssumeRole = "assume_role",
        "STS gave no session of the role: check role_arn and external_id, the trust policy of the role, sts:AssumeRole in our own policy, and the path to STS in host=.";
    Fd = "fd",
        "This process has no file descriptor left for a connection: raise LimitNOFILE (ulimit -n) of the service, or lower max_files_per_process.";
    Runtime = "runtime",
        "This process lacks threads or memory of its own: raise TasksMax or the memory limit of the service.";
}

impl Cause {
    /// Inverse of [`Cause::name`].
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|cause| cause.name() == name)
    }

    /// The cause that an error's info begins with, where it is one of this table: other reasons
    /// have words of their own after `cause=`.
    pub(crate) fn of(reason: Reason, info: &str) -> Option<Self> {
        use Reason::*;
        let about_the_way = matches!(reason, KmsUnreachable | KmsTimeout | Credentials | Endpoint);
        let word = info.strip_prefix("cause=")?.split([' ', ':']).next()?;
        about_the_way.then(|| Self::from_name(word)).flatten()
    }

    /// True of what this process lacks, or knows too late: another may do better.
    pub(crate) const fn concerns_one_process(self) -> bool {
        matches!(self, Self::Fd | Self::Runtime)
    }
}
