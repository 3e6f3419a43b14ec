//! What the AWS provider asks of a KMS and an STS that answer on this machine, and what it makes of
//! the answers.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use cmk_crypto::key::SecretKey;
use cmk_error::{Reason, Result};
use cmk_kms::aws::AwsSettings;
use cmk_kms::trace::{self, CallTrace, Outcome};
use cmk_kms::{ConcurrentCalls, CustomerKey, EncryptionContext, Kms, Providers};
use cmk_kms::{Purpose, Route, Settings, Wrapped};
use fake_kms::Server;
use serde_json::{Value, json};
use std::panic::AssertUnwindSafe;
use std::process::Command;
use std::rc::Rc;
use std::time::Duration;

const ACCESS_KEY: &str = "AKIAFAKEFAKEFAKEFAKE";
const HERE: &str = "eu-west-1";
const THERE: &str = "us-east-1";
const OURS: &str = "111122223333";
const TENANTS: &str = "444455556666";
const ROLE: &str = "arn:aws:iam::444455556666:role/path/cmk";

/// A server, and the providers on it.
struct World(Server);

impl World {
    fn control(&self, path: &str, body: Value) -> Value {
        self.0.control("POST", path, body).unwrap()
    }

    fn key(&self, region: &str, account: &str) -> String {
        let key = self.control("key", json!({"region": region, "account": account}));
        key["arn"].as_str().unwrap().to_owned()
    }

    fn log(&self) -> Vec<Value> {
        self.0.control("GET", "log", Value::Null).unwrap().as_array().unwrap().clone()
    }

    fn settings(&self) -> Settings {
        let second = Duration::from_secs(1);
        Settings {
            aws: AwsSettings {
                kms_endpoint: Some(self.0.url()),
                sts_endpoint: Some(self.0.url()),
                service_principal: None,
                connect_timeout: second,
                attempt_timeout: second,
                operation_timeout: second * 5,
                max_attempts: 2,
                max_clients: 8,
            },
            #[cfg(feature = "local")]
            local: Default::default(),
        }
    }

    fn on<R>(&self, ask: impl FnOnce(&Providers<'_>) -> R) -> R {
        let settings = self.settings();
        ask(&Providers { settings: &settings, limit: None, tick: || () })
    }

    /// Wraps a data key of `acme` and checks that it is the same one that comes back.
    fn opens(&self, key: &CustomerKey, wrapped: &[u8], dek: &SecretKey) -> bool {
        let opened = self.on(|kms| kms.unwrap(key, wrapped, &acme()));
        opened.is_ok_and(|opened| opened.expose_secret() == dek.expose_secret())
    }
}

fn acme() -> EncryptionContext<'static> {
    EncryptionContext::new("acme", Purpose::Values)
}

fn customer_key(uri: &str) -> CustomerKey {
    CustomerKey::parse(uri, "{}", 0).unwrap()
}

fn as_role(uri: &str) -> CustomerKey {
    let options = json!({"role_arn": ROLE, "external_id": "acme-1"}).to_string();
    CustomerKey::parse(uri, &options, 0).unwrap()
}

fn summary(calls: &[CallTrace]) -> Vec<String> {
    calls
        .iter()
        .map(|it| format!("{} {} {}", it.service, it.operation, it.outcome.name()))
        .collect()
}

/// Runs the test in a process of its own, whose environment has credentials: the SDK's chain takes
/// them from there.
fn with_credentials(test: &str, work: impl FnOnce(&World)) {
    if std::env::var("AWS_ACCESS_KEY_ID").is_ok_and(|id| id == ACCESS_KEY) {
        return work(&World(Server::start().unwrap()));
    }
    let status = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env("AWS_ACCESS_KEY_ID", ACCESS_KEY)
        .env("AWS_SECRET_ACCESS_KEY", "fake-secret-for-tests")
        .env("AWS_EC2_METADATA_DISABLED", "true")
        .status();
    assert!(status.unwrap().success(), "{test}");
}

#[test]
fn rewraps_by_re_encrypt_where_one_principal_sees_both() {
    with_credentials("rewraps_by_re_encrypt_where_one_principal_sees_both", |world| {
        let [from, to] = [TENANTS, OURS].map(|account| customer_key(&world.key(HERE, account)));
        let old = world.on(|kms| kms.generate(&from, &acme())).unwrap();
        let dek = world.on(|kms| kms.unwrap(&from, &old, &acme())).unwrap();
        assert_eq!(world.on(|kms| kms.route(&from, &to)), Route::Rewrap);
        let new = world.on(|kms| kms.rewrap(&from, &old, &to, &acme())).unwrap();
        assert!(world.opens(&to, &new, &dek) && !world.opens(&from, &new, &dek));
        // Another context is another data key to KMS.
        let index = EncryptionContext::new("acme", Purpose::Index);
        let refused = world.on(|kms| kms.rewrap(&from, &old, &to, &index)).unwrap_err();
        assert_eq!(refused.reason, Reason::WrappedKeyRejected);
        world
            .control("deny", json!({"arn": to.uri(), "deny": true, "operations": ["ReEncryptTo"]}));
        let refused = world.on(|kms| kms.rewrap(&from, &old, &to, &acme())).unwrap_err();
        assert_eq!(refused.reason, Reason::KeyAccessDenied);
        let new = world.on(|kms| kms.wrap(&to, &dek, &acme())).unwrap();
        assert!(world.opens(&to, &new, &dek));
    });
}

#[test]
fn the_way_from_one_key_to_another_is_the_shortest_there_is() {
    with_credentials("the_way_from_one_key_to_another_is_the_shortest_there_is", |world| {
        let route = |from: &CustomerKey, to: &CustomerKey| world.on(|kms| kms.route(from, to));
        let here = world.key(HERE, TENANTS);
        let from = customer_key(&here);
        for to in [customer_key(&world.key(THERE, TENANTS)), as_role(&world.key(HERE, TENANTS))] {
            assert_eq!(route(&from, &to), Route::UnwrapAndWrap);
            let old = world.on(|kms| kms.generate(&from, &acme())).unwrap();
            let refused = world.on(|kms| kms.rewrap(&from, &old, &to, &acme())).unwrap_err();
            assert_eq!(refused.reason, Reason::KmsRejected);
        }
        // Sessions of one role differ by epoch, and are one principal.
        world.control("role", json!({"role_arn": ROLE, "external_id": "acme-1"}));
        let from = as_role(&here);
        let old = world.on(|kms| kms.generate(&from, &acme())).unwrap();
        let later = CustomerKey::parse(&world.key(HERE, TENANTS), from.options(), 7).unwrap();
        assert_eq!(route(&from, &later), Route::Rewrap);
        world.on(|kms| kms.rewrap(&from, &old, &later, &acme())).unwrap();
    });
}

#[test]
fn a_replica_opens_what_its_twin_wrapped() {
    with_credentials("a_replica_opens_what_its_twin_wrapped", |world| {
        let multi = |account: &str| {
            let request = json!({"region": HERE, "account": account, "multi_region": true});
            world.control("key", request)["arn"].as_str().unwrap().to_owned()
        };
        let uri = multi(TENANTS);
        let replica = world.control("replicate", json!({"arn": uri, "region": THERE}));
        let [from, to] = [&*uri, replica["arn"].as_str().unwrap()].map(customer_key);
        let wrapped = world.on(|kms| kms.generate(&from, &acme())).unwrap();
        let dek = world.on(|kms| kms.unwrap(&from, &wrapped, &acme())).unwrap();
        assert_eq!(world.on(|kms| kms.route(&from, &to)), Route::SameBytes);
        world.control("key_state", json!({"arn": uri, "state": "Deleted"}));
        assert!(world.opens(&to, &wrapped, &dek) && !world.opens(&from, &wrapped, &dek));
        // Same id, another account; another id.
        let stranger = customer_key(&to.uri().replace(TENANTS, OURS));
        assert_eq!(world.on(|kms| kms.route(&from, &stranger)), Route::UnwrapAndWrap);
        let other = customer_key(&multi(TENANTS));
        assert_eq!(world.on(|kms| kms.route(&from, &other)), Route::Rewrap);
    });
}

#[test]
fn an_answer_for_another_key_is_refused() {
    with_credentials("an_answer_for_another_key_is_refused", |world| {
        let [from, to] = [TENANTS, OURS].map(|account| customer_key(&world.key(HERE, account)));
        let old = world.on(|kms| kms.generate(&from, &acme())).unwrap();
        let dek = SecretKey::generate().unwrap();
        let wrong = |ask: &dyn Fn(&Providers<'_>) -> Result<()>| {
            world.control("fault", json!({"kind": "wrong_key_id", "times": 1}));
            assert_eq!(world.on(ask).unwrap_err().reason, Reason::KmsAnswerMismatch);
        };
        wrong(&|kms| kms.rewrap(&from, &old, &to, &acme()).map(drop));
        wrong(&|kms| kms.wrap(&to, &dek, &acme()).map(drop));
        assert_eq!(trace::take().last().unwrap().outcome.name(), "kms_answer_mismatch");
    });
}

#[test]
fn every_request_leaves_a_trace_with_the_id_of_its_answer() {
    with_credentials("every_request_leaves_a_trace_with_the_id_of_its_answer", |world| {
        let uri = world.key(HERE, TENANTS);
        world.control("role", json!({"role_arn": ROLE, "external_id": "acme-1"}));
        let key = as_role(&uri);
        let wrapped = world.on(|kms| kms.generate(&key, &acme())).unwrap();
        world.control("fault", json!({"kind": "status", "times": 1}));
        world.on(|kms| kms.unwrap(&key, &wrapped, &acme())).unwrap();
        world.control("key_state", json!({"arn": uri, "state": "Disabled"}));
        world.on(|kms| kms.unwrap(&key, &wrapped, &acme())).unwrap_err();
        world.control("fault", json!({"kind": "reset", "times": 2}));
        world.on(|kms| kms.unwrap(&key, &wrapped, &acme())).unwrap_err();
        let calls = trace::take();
        assert_eq!(
            summary(&calls),
            [
                "sts AssumeRole success",
                "kms GenerateDataKeyWithoutPlaintext success",
                "kms Decrypt kms_server_error",
                "kms Decrypt success",
                "kms Decrypt key_disabled",
                "kms Decrypt kms_unreachable",
                "kms Decrypt kms_unreachable",
            ]
        );
        let ids: Vec<_> = calls.iter().map(|call| call.request_id.as_deref()).collect();
        let log = world.log();
        let logged: Vec<_> = log.iter().map(|entry| entry["request_id"].as_str()).collect();
        // Of a connection that broke, nobody told an id.
        assert_eq!(ids[..5], logged[..5]);
        assert_eq!(ids[5..], [None, None]);
        for call in &calls {
            assert_eq!((&*call.key_uri, call.tenant.as_deref()), (&*uri, Some("acme")));
            assert!(call.took < Duration::from_secs(5) && call.purpose == Some(Purpose::Values));
        }
        assert!(calls.is_sorted_by_key(|call| call.began));
        assert!(trace::take().is_empty());
    });
}

#[test]
fn a_wait_that_is_cut_short_is_traced_as_such() {
    with_credentials("a_wait_that_is_cut_short_is_traced_as_such", |world| {
        let key = customer_key(&world.key(HERE, TENANTS));
        world.control("fault", json!({"kind": "hang", "operation": "Decrypt"}));
        let cancelled = std::panic::catch_unwind(AssertUnwindSafe(|| {
            world.on(|kms| {
                let tick = || std::panic::resume_unwind(Box::new("cancelled"));
                let kms = Providers { settings: kms.settings, limit: None, tick };
                drop(kms.unwrap(&key, b"wrapped", &acme()));
            });
        }));
        assert!(cancelled.is_err());
        let calls = trace::take();
        assert_eq!(summary(&calls), ["kms Decrypt interrupted"]);
        assert_eq!((calls[0].outcome, calls[0].request_id.clone()), (Outcome::Interrupted, None));
    });
}

#[test]
fn keys_are_asked_side_by_side_and_one_that_hangs_delays_no_other() {
    let name = "keys_are_asked_side_by_side_and_one_that_hangs_delays_no_other";
    with_credentials(name, |world| {
        let keys = [(); 4].map(|()| customer_key(&world.key(HERE, TENANTS)));
        let wrapped = keys
            .each_ref()
            .map(|key| world.on(|kms| kms.generate(key, &acme())).unwrap().into_boxed_slice());
        world.control("fault", json!({"kind": "hang", "arn": keys[0].uri()}));
        world.control("fault", json!({"kind": "reset", "arn": keys[1].uri()}));
        trace::take();
        let (settings, mut calls) = (Rc::new(world.settings()), ConcurrentCalls::default());
        for (number, (key, bytes)) in keys.iter().zip(wrapped).enumerate() {
            let key = key.clone();
            let wrapped = Wrapped { key, bytes, tenant: "acme".into(), purpose: Purpose::Values };
            calls.unwrap(&settings, wrapped, move |answer| (number, answer.map(drop)));
        }
        calls.describe(&settings, keys[2].clone(), |facts| (4, facts.map(drop)));
        let mut ended = Vec::new();
        while ended.len() < 4 {
            ended.extend(calls.wait().unwrap());
        }
        ended.sort_by_key(|(number, _)| *number);
        let numbers: Vec<_> = ended.iter().map(|(number, _)| *number).collect();
        assert_eq!((numbers, calls.len()), (vec![1, 2, 3, 4], 1));
        let failed = ended.remove(0).1.unwrap_err();
        assert_eq!(failed.reason, Reason::KmsUnreachable);
        assert!(ended.iter().all(|(_, answer)| answer.is_ok()), "{ended:?}");
        // Each call's requests are its own.
        let traced = trace::take();
        let of = |key: &CustomerKey| {
            let mine = traced.iter().filter(|it| &*it.key_uri == key.uri());
            mine.map(|it| it.operation.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(of(&keys[1]), ["Decrypt", "Decrypt"], "it was tried twice");
        assert_eq!(of(&keys[3]), ["Decrypt"]);
        let mut asked = of(&keys[2]);
        asked.sort();
        assert_eq!(asked, ["Decrypt", "DescribeKey", "GetKeyRotationStatus"]);
        assert!(of(&keys[0]).is_empty());
        drop(calls);
        assert_eq!(summary(&trace::take()), ["kms Decrypt interrupted"]);
    });
}

#[test]
fn a_key_is_described_as_far_as_it_may_be_seen() {
    with_credentials("a_key_is_described_as_far_as_it_may_be_seen", |world| {
        let request = json!({"region": HERE, "account": TENANTS, "multi_region": true});
        let uri = world.control("key", request)["arn"].as_str().unwrap().to_owned();
        let replica = world.control("replicate", json!({"arn": uri, "region": THERE}));
        let facts = world.on(|kms| kms.describe(&customer_key(&uri))).unwrap();
        assert_eq!((facts.enabled, facts.state.as_deref()), (Some(true), Some("Enabled")));
        assert_eq!(facts.can_wrap, Some(true));
        assert_eq!(facts.kind.as_deref(), Some("SYMMETRIC_DEFAULT ENCRYPT_DECRYPT"));
        assert_eq!(
            (facts.account.as_deref(), facts.region.as_deref()),
            (Some(TENANTS), Some(HERE))
        );
        assert_eq!((facts.origin.as_deref(), facts.owner_managed), (Some("AWS_KMS"), Some(true)));
        assert_eq!((facts.multi_region, facts.rotates), (Some(true), Some(false)));
        let replicas: Vec<_> = facts.replicas.iter().map(|uri| &**uri).collect();
        assert_eq!(replicas, [&*uri, replica["arn"].as_str().unwrap()]);
        assert!(facts.not_permitted.is_empty());

        let signs = json!({"region": HERE, "account": TENANTS, "usage": "SIGN_VERIFY",
                           "spec": "RSA_2048"});
        let signs = world.control("key", signs)["arn"].as_str().unwrap().to_owned();
        world.control("key_state", json!({"arn": signs, "state": "Disabled"}));
        let facts = world.on(|kms| kms.describe(&customer_key(&signs))).unwrap();
        assert_eq!((facts.enabled, facts.can_wrap), (Some(false), Some(false)));

        let deny = json!({"arn": uri, "deny": true, "operations": ["DescribeKey"]});
        world.control("deny", deny);
        let facts = world.on(|kms| kms.describe(&customer_key(&uri))).unwrap();
        assert_eq!((facts.enabled, facts.rotates), (None, None));
        assert_eq!(facts.not_permitted, ["kms:DescribeKey"]);
        world.control("deny", json!({"arn": uri, "deny": true}));
        let facts = world.on(|kms| kms.describe(&customer_key(&uri))).unwrap();
        assert_eq!(facts.not_permitted, ["kms:DescribeKey", "kms:GetKeyRotationStatus"]);
        world.control("key_state", json!({"arn": uri, "state": "Deleted"}));
        let gone = world.on(|kms| kms.describe(&customer_key(&uri))).unwrap_err();
        assert_eq!(gone.reason, Reason::KeyNotFound);
    });
}

#[test]
fn sees_whether_it_could_manage_a_key() {
    with_credentials("sees_whether_it_could_manage_a_key", |world| {
        let uri = world.key(HERE, OURS);
        let key = customer_key(&uri);
        let seen = || world.on(|kms| kms.management(&key)).unwrap();
        // The policy that AWS gives a new key leaves all to its account, which is ours.
        let policy = seen().policy.unwrap();
        assert_eq!(policy.left_to_account.as_deref(), Some(OURS));
        assert!(policy.allows.is_empty() && !policy.open_to_anybody);
        assert_eq!(seen().can_create_grants, Some(true));

        let us = format!("arn:aws:iam::{OURS}:user/{ACCESS_KEY}");
        let statement = json!({"Effect": "Allow", "Principal": {"AWS": us}, "Resource": "*",
                               "Action": ["kms:Decrypt", "kms:Put*"]});
        let policy = json!({"Version": "2012-10-17", "Statement": [statement]}).to_string();
        world.control("policy", json!({"arn": uri, "policy": policy}));
        let deny = json!({"arn": uri, "deny": true, "operations": ["CreateGrant"]});
        world.control("deny", deny);
        let management = seen();
        assert_eq!(management.policy.unwrap().allows, ["kms:PutKeyPolicy"]);
        assert_eq!(management.can_create_grants, Some(false));

        world.control("deny", json!({"arn": uri, "deny": true}));
        assert_eq!(seen().policy, None);
        let asked = trace::take();
        assert!(asked.iter().all(|call| call.operation.as_ref() != "PutKeyPolicy"));
    });
}

#[test]
fn says_whom_aws_takes_us_for() {
    with_credentials("says_whom_aws_takes_us_for", |world| {
        let uri = world.key(HERE, TENANTS);
        // Our own identity, whatever role the key is used as.
        for key in [customer_key(&uri), as_role(&uri)] {
            let identity = world.on(|kms| kms.identity(&key)).unwrap().unwrap();
            let us = format!("arn:aws:iam::{OURS}:user/{ACCESS_KEY}");
            assert_eq!((&*identity.principal, &*identity.session), (&*us, &*us));
            assert_eq!(&*identity.account, OURS);
        }
        let refused = json!({"allow": ["AKIAFAKEOTHER0000000"]});
        world.control("access_keys", refused);
        let error = world.on(|kms| kms.identity(&customer_key(&uri))).unwrap_err();
        assert_eq!(error.reason, Reason::Credentials);
    });
}
