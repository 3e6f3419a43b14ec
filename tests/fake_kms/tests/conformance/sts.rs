//! AssumeRole, by the provider that the SDK has for it.

use std::time::UNIX_EPOCH;

use aws_config::SdkConfig;
use aws_config::sts::AssumeRoleProvider;
use aws_credential_types::Credentials;
use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider};
use aws_sdk_kms::Client;
use serde_json::{Value, json};

use crate::target::{ACCESS_KEY_ID, Target, code};

const ROLE: &str = "arn:aws:iam::444455556666:role/tenant-acme";
const EXTERNAL_ID: &str = "fake-external-id";

fn ours() -> Target {
    let target = Target::fake_kms("eu-west-1");
    target.control("POST", "role", json!({"role_arn": ROLE, "external_id": EXTERNAL_ID}));
    target
}

async fn assume(
    target: &Target,
    role: &str,
    external_id: Option<&str>,
) -> Result<Credentials, String> {
    let mut provider =
        AssumeRoleProvider::builder(role).session_name("a-test").configure(&target.config());
    if let Some(external_id) = external_id {
        provider = provider.external_id(external_id);
    }
    let provider = provider.build().await;
    // The provider wraps the answer of STS; its code is in the text of the sources.
    provider.provide_credentials().await.map_err(|error| format!("{error:?}"))
}

fn client(target: &Target, credentials: Credentials) -> Client {
    let credentials = SharedCredentialsProvider::new(credentials);
    let config: SdkConfig =
        target.config().into_builder().credentials_provider(credentials).build();
    Client::new(&config)
}

#[tokio::test]
async fn an_assumed_role_is_the_principal() {
    let target = ours();
    let request = json!({"region": "eu-west-1", "account": "444455556666"});
    let answer = target.control("POST", "key", request);
    let key = answer["arn"].as_str().expect("an ARN");
    target.control("POST", "principals", json!({"arn": key, "allow": [ROLE]}));
    let credentials = assume(&target, ROLE, Some(EXTERNAL_ID)).await.expect("AssumeRole");
    assert!(credentials.access_key_id().starts_with("ASIAFAKE"));
    let lifetime = credentials.expiry().expect("an expiry").elapsed().expect_err("in the future");
    assert!((3500..=3600).contains(&lifetime.duration().as_secs()), "{lifetime:?}");
    let role = client(&target, credentials.clone());
    role.describe_key().key_id(key).send().await.expect("the role is a principal");
    let bare = key.rsplit('/').next().expect("an id");
    role.describe_key().key_id(bare).send().await.expect("a bare id means the role's account");
    assert_eq!(code(target.kms.describe_key().key_id(key).send().await), "AccessDeniedException");
    let log = target.control("GET", "log", Value::Null);
    let logged: Vec<_> = log.as_array().expect("a list").iter().collect();
    assert_eq!(logged[0]["operation"], "AssumeRole");
    assert_eq!(logged[1]["access_key_id"], credentials.access_key_id());
}

#[tokio::test]
async fn the_external_id_must_be_right() {
    let target = ours();
    let unknown = "arn:aws:iam::444455556666:role/nobody";
    for (role, external_id) in
        [(ROLE, None), (ROLE, Some("fake-other-id")), (unknown, Some(EXTERNAL_ID))]
    {
        let error = assume(&target, role, external_id).await.expect_err("not trusted");
        assert!(error.contains("\"AccessDenied\""), "{error}");
    }
    let counters = target.control("GET", "counters", Value::Null);
    assert_eq!(counters["by_outcome"], json!({"AccessDenied": 3}));
}

#[tokio::test]
async fn temporary_credentials_need_their_session_token() {
    let target = ours();
    let credentials = assume(&target, ROLE, Some(EXTERNAL_ID)).await.expect("AssumeRole");
    let (id, secret) = (credentials.access_key_id(), credentials.secret_access_key());
    for (id, token) in [
        (id, None),
        (id, Some("fake-other-token".to_owned())),
        ("ASIAFAKENEVERISSUED0", credentials.session_token().map(str::to_owned)),
    ] {
        let client = client(&target, Credentials::new(id, secret, token, None, "a test"));
        assert_eq!(code(client.list_keys().send().await), "UnrecognizedClientException");
    }
    client(&target, credentials).list_keys().send().await.expect("with its own token");
}

#[tokio::test]
async fn a_role_can_be_kept_to_its_principals() {
    let target = ours();
    let trust =
        |allow: &str| json!({"role_arn": ROLE, "external_id": EXTERNAL_ID, "allow": [allow]});
    target.control("POST", "role", trust("AKIAFAKESOMEBODYELSE"));
    let error = assume(&target, ROLE, Some(EXTERNAL_ID)).await.expect_err("not a principal");
    assert!(error.contains("\"AccessDenied\""), "{error}");
    target.control("POST", "role", trust(ACCESS_KEY_ID));
    assume(&target, ROLE, Some(EXTERNAL_ID)).await.expect("a principal");
}

#[tokio::test]
async fn the_sessions_of_a_role_can_end_before_their_time() {
    let target = ours();
    let other = "arn:aws:iam::444455556666:role/tenant-other";
    target.control("POST", "role", json!({"role_arn": other}));
    let ended = assume(&target, ROLE, Some(EXTERNAL_ID)).await.expect("AssumeRole");
    let running = assume(&target, other, None).await.expect("AssumeRole");
    let end = |role| target.control("POST", "end_sessions", json!({"role_arn": role}));
    assert_eq!(end(ROLE), json!({"ended": 1}));
    assert_eq!(end(ROLE), json!({"ended": 0}));
    let list = client(&target, ended).list_keys().send().await;
    assert_eq!(code(list), "ExpiredTokenException");
    client(&target, running).list_keys().send().await.expect("another role's session");
    let anew = assume(&target, ROLE, Some(EXTERNAL_ID)).await.expect("AssumeRole");
    client(&target, anew).list_keys().send().await.expect("a later session");
}

#[tokio::test]
async fn the_expiration_that_is_told_can_be_any() {
    let target = ours();
    let never = json!({"kind": "expires", "times": 1, "expiration": "9999-12-31T23:59:59Z"});
    target.control("POST", "fault", never);
    let credentials = assume(&target, ROLE, Some(EXTERNAL_ID)).await.expect("AssumeRole");
    let expiry = credentials.expiry().expect("an expiry").duration_since(UNIX_EPOCH);
    assert_eq!(expiry.expect("a time after 1970").as_secs(), 253_402_300_799);
    let client = client(&target, credentials);
    client.list_keys().send().await.expect("as good as any");
    target.control("POST", "end_sessions", json!({"role_arn": ROLE}));
    assert_eq!(code(client.list_keys().send().await), "ExpiredTokenException");
}

#[tokio::test]
async fn a_fault_can_be_scripted_for_a_role() {
    let target = ours();
    let fault = json!({"kind": "status", "times": 1, "arn": ROLE, "status": 400, "code": "Fake"});
    target.control("POST", "fault", fault);
    let error = assume(&target, ROLE, Some(EXTERNAL_ID)).await.expect_err("a fault");
    assert!(error.contains("\"Fake\""), "{error}");
    assume(&target, ROLE, Some(EXTERNAL_ID)).await.expect("used up");
}

fn who_am_i(target: &Target) -> String {
    target.raw(
        "Content-Type: application/x-www-form-urlencoded\r\n\
         Authorization: AWS4-HMAC-SHA256 Credential=AKIAFAKE/20260101/eu-west-1/sts/aws4_request, \
         SignedHeaders=host, Signature=0f\r\n",
        "Action=GetCallerIdentity&Version=2011-06-15",
    )
}

#[test]
fn a_caller_can_ask_who_it_is() {
    let answer = who_am_i(&ours());
    let user = "<Arn>arn:aws:iam::111122223333:user/AKIAFAKE</Arn><UserId>AKIAFAKE</UserId>";
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains(user), "{answer}");
}

#[test]
fn an_access_key_that_does_not_exist_is_nobody() {
    let target = ours();
    target.control("POST", "access_keys", json!({"allow": [ACCESS_KEY_ID]}));
    let answer = who_am_i(&target);
    let code = "<Code>InvalidClientTokenId</Code>";
    assert!(answer.starts_with("HTTP/1.1 403") && answer.contains(code), "{answer}");
}
