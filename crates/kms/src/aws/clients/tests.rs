//! Against a KMS and an STS that answer in this process, without a network.

use super::*;
use crate::aws::answer_limit::limited;
use crate::aws::assumed_role::{ExternalId, RoleArn};
use crate::aws::classify::classify;
use crate::aws::progress;
use aws_config::BehaviorVersion;
use aws_credential_types::Credentials;
use aws_smithy_http_client::tls::{self, rustls_provider::CryptoMode};
use aws_smithy_http_client::{Builder, Connector};
use aws_smithy_runtime_api::client::http::{
    HttpConnector, HttpConnectorFuture, SharedHttpConnector, http_client_fn,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_types::body::SdkBody;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// Answers AssumeRole with a session and everything else with an empty object, and counts.
#[derive(Debug)]
struct Fake;

thread_local! {
    static ASSUMED: std::cell::Cell<u32> = const { std::cell::Cell::new(0) };
    static ASKED: std::cell::Cell<u32> = const { std::cell::Cell::new(0) };
}

impl HttpConnector for Fake {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let body = request.body().bytes().unwrap_or_default();
        let answer = match body.windows(10).any(|part| part == b"AssumeRole") {
            true => {
                ASSUMED.set(ASSUMED.get() + 1);
                "<AssumeRoleResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\">\
                 <AssumeRoleResult><Credentials><AccessKeyId>ASIAFAKE</AccessKeyId>\
                 <SecretAccessKey>fake</SecretAccessKey><SessionToken>fake</SessionToken>\
                 <Expiration>2999-01-01T00:00:00Z</Expiration></Credentials></AssumeRoleResult>\
                 </AssumeRoleResponse>"
            }
            false => {
                ASKED.set(ASKED.get() + 1);
                "{}"
            }
        };
        let status = 200.try_into().unwrap();
        HttpConnectorFuture::ready(Ok(HttpResponse::new(status, SdkBody::from(answer))))
    }
}

fn as_somebody() -> ConfigLoader {
    let own = Credentials::new("AKIAFAKE", "fake", None, None, "test");
    aws_config::defaults(BehaviorVersion::latest()).credentials_provider(own)
}

fn fake() -> Result<ConfigLoader> {
    Ok(as_somebody().http_client(http_client_fn(|_, _| SharedHttpConnector::new(Fake))))
}

fn settings(max_clients: usize) -> AwsSettings {
    AwsSettings {
        kms_endpoint: Some("http://127.0.0.1:9".to_owned()),
        sts_endpoint: Some("http://127.0.0.1:9".to_owned()),
        connect_timeout: Duration::from_secs(1),
        attempt_timeout: Duration::from_secs(1),
        operation_timeout: Duration::from_secs(5),
        max_attempts: 1,
        max_clients,
        service_principal: None,
    }
}

fn role(number: u32) -> AssumedRole {
    AssumedRole {
        arn: RoleArn::parse(&format!("arn:aws:iam::111122223333:role/r{number}")).unwrap(),
        external_id: ExternalId::parse("external").unwrap(),
        session_epoch: 0,
    }
}

/// Sessions that calls for these roles, in turn, cost.
fn sessions(clients: &Clients, settings: &AwsSettings, roles: &[AssumedRole]) -> u32 {
    let before = ASSUMED.get();
    for role in roles {
        ask(clients, settings, Some(role)).unwrap();
    }
    ASSUMED.get() - before
}

fn ask(clients: &Clients, settings: &AwsSettings, role: Option<&AssumedRole>) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(progress::of_call(clients.call(
        settings,
        "eu-central-1",
        role,
        async |made| {
            let answer = made.client.describe_key().key_id("key").send().await;
            answer.map(|_| ()).map_err(|error| classify(&error))
        },
    )))
}

#[test]
fn many_roles_in_turn_cost_a_session_each() {
    let (clients, settings) = (Clients::new(fake), settings(256));
    let roles: Vec<_> = (0..70).map(role).collect();
    let asked = ASKED.get();
    assert_eq!(sessions(&clients, &settings, &roles), 70);
    assert_eq!(sessions(&clients, &settings, &roles), 0);
    assert_eq!(ASKED.get() - asked, 2 * 70);
}

#[test]
fn the_client_that_was_not_used_for_longest_makes_room() {
    let (clients, settings) = (Clients::new(fake), settings(2));
    let [a, b, c] = [0, 1, 2].map(role);
    assert_eq!(sessions(&clients, &settings, &[a.clone(), b.clone(), a.clone()]), 2);
    assert_eq!(sessions(&clients, &settings, &[c, a]), 1);
    assert_eq!(sessions(&clients, &settings, &[b]), 1);
}

#[test]
fn another_epoch_is_another_session() {
    let (clients, settings) = (Clients::new(fake), settings(256));
    let later = AssumedRole { session_epoch: 1, ..role(0) };
    assert_eq!(sessions(&clients, &settings, &[role(0), later.clone(), role(0), later]), 2);
}

#[test]
fn settings_make_new_clients_and_their_number_does_not() {
    let (clients, before) = (Clients::new(fake), settings(256));
    assert_eq!(sessions(&clients, &before, &[role(0)]), 1);
    assert_eq!(sessions(&clients, &settings(2), &[role(0)]), 0);
    let slower = AwsSettings { attempt_timeout: Duration::from_secs(2), ..before.clone() };
    assert_eq!(sessions(&clients, &slower, &[role(0)]), 1);
    assert_eq!(sessions(&clients, &before, &[role(0)]), 1);
}

static CONNECTORS: AtomicU32 = AtomicU32::new(0);

/// As [`loader`], but counts the connectors that are made.
fn counting() -> Result<ConfigLoader> {
    static CONNECTIONS: LazyLock<aws_smithy_runtime_api::client::http::SharedHttpClient> =
        LazyLock::new(|| {
            limited(Builder::new().build_with_connector_fn(|settings, _| {
                CONNECTORS.fetch_add(1, Relaxed);
                let connector =
                    Connector::builder().tls_provider(tls::Provider::Rustls(CryptoMode::AwsLc));
                match settings {
                    Some(settings) => connector.connector_settings(settings.clone()).build(),
                    None => connector.build(),
                }
            }))
        });
    Ok(as_somebody().http_client(CONNECTIONS.clone()))
}

/// A connector has the TLS configuration and all root certificates of the system: 8 MB.
#[test]
fn all_clients_share_one_connector() {
    let (clients, settings) = (Clients::new(counting), settings(256));
    for number in 0..5 {
        let refused = ask(&clients, &settings, Some(&role(number))).unwrap_err();
        let told = "cause=assume_role layer=refused region=eu-central-1";
        assert_eq!(refused.info(), Some(told), "nobody listens there");
    }
    ask(&clients, &settings, None).unwrap_err();
    assert_eq!(CONNECTORS.load(Relaxed), 1);
}
