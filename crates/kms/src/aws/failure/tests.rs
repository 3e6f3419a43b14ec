//! What is told of requests that brought nothing.

use super::*;
use crate::aws::progress::{Asking, Requesting};

fn detail(error: &CredentialsError) -> String {
    find::<Error>(error).expect("an error of ours").detail()
}

/// A request to `host` is cut short.
fn hangs(host: &str, connected: bool) {
    drop(Requesting::begin(host.into(), None, move || connected));
}

fn refuses(host: &str) {
    Requesting::begin(host.into(), None, || false).failed(Cause::Refused, false);
}

fn in_call(work: impl FnOnce()) {
    progress::in_call(|| {
        progress::in_regions("eu-west-1", "eu-central-1");
        work();
    });
}

#[test]
fn what_hangs_is_told_by_its_layer() {
    in_call(|| {
        hangs("kms.example", false);
        let told = "reason=kms_timeout cause=timeout_connect host=kms.example region=eu-west-1";
        assert_eq!(timed_out().detail(), told);
        hangs("kms.example", true);
        let told = "reason=kms_timeout cause=timeout_response host=kms.example region=eu-west-1";
        assert_eq!(timed_out().detail(), told);
    });
    let told = "reason=kms_timeout cause=timeout_response region=eu-west-1";
    in_call(|| assert_eq!(timed_out().detail(), told));
}

#[test]
fn a_source_that_hangs_or_refuses_is_no_matter_of_kms() {
    let gave_none = || CredentialsError::unhandled("foreign text");
    for (provider, host, hung, refused) in [
        (
            "imds",
            "169.254.169.254",
            "cause=credentials_timeout provider=imds layer=timeout_response host=169.254.169.254",
            "cause=credentials:imds layer=refused host=169.254.169.254",
        ),
        (
            "web_identity",
            "sts.example",
            "cause=credentials_timeout provider=web_identity layer=timeout_response \
             host=sts.example region=eu-central-1",
            "cause=web_identity layer=refused host=sts.example region=eu-central-1",
        ),
        (
            ASSUME_ROLE,
            "sts.example",
            "cause=credentials_timeout provider=assume_role layer=timeout_response \
             host=sts.example region=eu-central-1",
            "cause=assume_role layer=refused host=sts.example region=eu-central-1",
        ),
    ] {
        let (hung, refused) =
            (format!("reason=credentials {hung}"), format!("reason=credentials {refused}"));
        in_call(|| {
            let asking = Asking::begin(provider);
            hangs(host, true);
            drop(asking);
            assert_eq!(timed_out().detail(), hung);
            let asking = Asking::begin(provider);
            refuses(host);
            let error = match provider {
                ASSUME_ROLE => of_assumed_role(gave_none()),
                _ => of_source(provider, gave_none()),
            };
            asking.answered();
            assert_eq!(detail(&error), refused);
            // It is not told anew by whoever passes it on.
            assert_eq!(detail(&of_assumed_role(error)), refused);
        });
    }
}

#[test]
fn clear_text_and_unusable_endpoints_are_configuration() {
    let error = CredentialsError::not_loaded(ClearText { host: "10.0.0.1".into() });
    let told = "reason=endpoint cause=endpoint host=10.0.0.1";
    assert_eq!(detail(&of_source("imds", error)), told);
    let error = ResolveEndpointError::message("foreign text");
    let told = "reason=endpoint cause=endpoint region=eu-west-1";
    in_call(|| assert_eq!(undelivered(&error, false).detail(), told));
    let told = "reason=credentials cause=credentials:profile";
    assert_eq!(detail(&broken("profile", Cause::Credentials)), told);
    let told = "reason=credentials cause=unsupported_profile provider=profile";
    assert_eq!(detail(&broken("profile", Cause::UnsupportedProfile)), told);
}

#[test]
fn what_a_process_lacks_is_told_wherever_it_lacks_it() {
    let lacks = |code| std::io::Error::from_raw_os_error(code);
    assert_eq!(no_resources(&lacks(libc::EMFILE)).detail(), "reason=kms_unreachable cause=fd");
    assert_eq!(no_resources(&lacks(libc::ENOMEM)).detail(), "reason=kms_unreachable cause=runtime");
    let error = of_source("web_identity", CredentialsError::provider_error(lacks(libc::EMFILE)));
    assert_eq!(detail(&error), "reason=credentials cause=fd provider=web_identity");
}
