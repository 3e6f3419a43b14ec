//! A server under test and a client for it.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_credential_types::Credentials;
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_sdk_kms::Client;
use aws_sdk_kms::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_kms::primitives::Blob;
use aws_sdk_kms::types::DataKeySpec;
use aws_smithy_async::time::SystemTimeSource;
use fake_kms::Server;
use serde_json::Value;

use crate::roto::Roto;

pub const ACCESS_KEY_ID: &str = "AKIAFAKEFAKEFAKEFAKE";

enum Running {
    FakeKms(Server),
    RotoAws(Roto),
}

/// A server of its own for each test, stopped when dropped.
pub struct Target {
    running: Running,
    pub region: &'static str,
    /// A client that does not retry, so that each error is seen.
    pub kms: Client,
}

impl Target {
    pub fn fake_kms(region: &'static str) -> Self {
        let server = Server::start().expect("a free port");
        let kms = Client::new(&config(&server.url(), region));
        Self { running: Running::FakeKms(server), region, kms }
    }

    pub fn roto_aws(region: &'static str) -> Self {
        let roto = Roto::start();
        let kms = Client::new(&config(&roto.url(), region));
        Self { running: Running::RotoAws(roto), region, kms }
    }

    pub fn is_roto_aws(&self) -> bool {
        matches!(self.running, Running::RotoAws(_))
    }

    /// What AWS does and ours too, as against what roto-aws does instead.
    pub fn aws_or_roto<T>(&self, aws: T, roto: T) -> T {
        if self.is_roto_aws() { roto } else { aws }
    }

    pub fn url(&self) -> String {
        match &self.running {
            Running::FakeKms(server) => server.url(),
            Running::RotoAws(roto) => roto.url(),
        }
    }

    pub fn config(&self) -> SdkConfig {
        config(&self.url(), self.region)
    }

    /// A client in another Region.
    pub fn kms_in(&self, region: &'static str) -> Client {
        Client::new(&config(&self.url(), region))
    }

    /// One request to the control API, which only our server has.
    pub fn control(&self, method: &str, path: &str, body: Value) -> Value {
        match &self.running {
            Running::FakeKms(server) => server.control(method, path, body).expect("well-formed"),
            Running::RotoAws(_) => panic!("roto-aws has no control API"),
        }
    }

    /// The ARN of a new symmetric key.
    pub async fn key(&self) -> String {
        let answer = self.kms.create_key().send().await.expect("CreateKey");
        answer.key_metadata.and_then(|metadata| metadata.arn).expect("an ARN")
    }

    /// A request as it is, for what the SDK would never send: header lines and a body.
    pub fn raw(&self, headers: &str, body: &str) -> String {
        let address = self.url().replace("http://", "");
        let mut stream = TcpStream::connect(&address).expect("a connection");
        let length = body.len();
        write!(
            stream,
            "POST / HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n{headers}\
             Content-Length: {length}\r\n\r\n{body}"
        )
        .expect("a request");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        answer
    }

    /// A data key under this key, without context.
    pub async fn wrapped(&self, key: &str) -> Blob {
        let call = self.kms.generate_data_key_without_plaintext().key_id(key);
        let answer = call.key_spec(DataKeySpec::Aes256).send().await;
        let answer = answer.expect("GenerateDataKeyWithoutPlaintext");
        answer.ciphertext_blob.expect("a ciphertext")
    }
}

/// Put together by hand, so that nothing from the environment gets in.
fn config(url: &str, region: &'static str) -> SdkConfig {
    let credentials =
        Credentials::new(ACCESS_KEY_ID, "fake-secret-for-tests", None, None, "a test");
    let timeouts = TimeoutConfig::builder().operation_timeout(Duration::from_secs(10)).build();
    SdkConfig::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new(region))
        .endpoint_url(url)
        .credentials_provider(SharedCredentialsProvider::new(credentials))
        .retry_config(RetryConfig::disabled())
        .timeout_config(timeouts)
        .time_source(SystemTimeSource::new())
        .build()
}

/// The error code of a call that has to fail with one.
#[track_caller]
pub fn code<T, E>(result: Result<T, SdkError<E>>) -> String
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
{
    let Err(error) = result else { panic!("the call has to fail, and it succeeded") };
    let Some(code) = error.code() else { panic!("an answer with an error code, not {error:?}") };
    code.to_owned()
}
