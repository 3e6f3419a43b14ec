//! Answers that are long, slow or without end.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use aws_sdk_kms::error::ProvideErrorMetadata;
use serde_json::{Value, json};

use crate::target::{Target, code};

const LIST_KEYS: &str = "X-Amz-Target: TrentService.ListKeys\r\n\
     Authorization: AWS4-HMAC-SHA256 Credential=AKIAFAKE/20260101/eu-west-1/kms/aws4_request, \
     SignedHeaders=host, Signature=0f\r\n";
const WHO_AM_I: &str = "Content-Type: application/x-www-form-urlencoded\r\n\
     Authorization: AWS4-HMAC-SHA256 Credential=AKIAFAKE/20260101/eu-west-1/sts/aws4_request, \
     SignedHeaders=host, Signature=0f\r\n";
const FORM: &str = "Action=GetCallerIdentity&Version=2011-06-15";

fn ours() -> Target {
    Target::fake_kms("eu-west-1")
}

fn split(answer: &str) -> (String, &str) {
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
    (head.to_lowercase(), body)
}

#[tokio::test]
async fn a_padded_answer_is_the_true_one() {
    let target = ours();
    let key = target.key().await;
    for chunked in [false, true] {
        let fault = json!({"kind": "padded", "times": 2, "bytes": 200_000, "chunked": chunked});
        target.control("POST", "fault", fault);
        let blob = target.wrapped(&key).await;
        let answer = target.kms.decrypt().ciphertext_blob(blob).send().await.expect("Decrypt");
        assert_eq!(answer.plaintext.expect("a key").as_ref().len(), 32);
    }
    let counters = target.control("GET", "counters", Value::Null);
    assert_eq!(counters["by_outcome"], json!({"Success": 1, "fault:padded": 4}));
}

#[tokio::test]
async fn a_padded_answer_can_be_an_error() {
    let target = ours();
    let fault = json!({"kind": "padded", "bytes": 5000, "status": 400, "code": "Fake", "times": 1});
    target.control("POST", "fault", fault);
    let error = target.kms.list_keys().send().await.expect_err("a fault");
    assert_eq!(error.code(), Some("Fake"));
    let raw = error.raw_response().expect("an answer");
    assert_eq!(raw.status().as_u16(), 400);
    assert_eq!(raw.body().bytes().map(<[u8]>::len), Some(5000));
    // The key's own error is padded as a success would be.
    let key = target.key().await;
    target.control("POST", "key_state", json!({"arn": key, "state": "Deleted"}));
    target.control("POST", "fault", json!({"kind": "padded", "bytes": 5000, "times": 1}));
    let error = target.kms.describe_key().key_id(&key).send().await.expect_err("deleted");
    assert_eq!(
        error.raw_response().and_then(|raw| raw.body().bytes()).map(<[u8]>::len),
        Some(5000)
    );
    assert_eq!(code::<(), _>(Err(error)), "NotFoundException");
}

#[test]
fn a_padded_answer_tells_its_length_unless_chunked() {
    let target = ours();
    for (headers, request, end) in [(LIST_KEYS, "{}", "}"), (WHO_AM_I, FORM, "Response>")] {
        target.control("POST", "fault", json!({"kind": "padded", "bytes": 70_000, "times": 1}));
        let answer = target.raw(headers, request);
        let (head, body) = split(&answer);
        assert!(head.contains("content-length: 70000") && !head.contains("chunked"), "{head}");
        assert_eq!(body.len(), 70_000);
        assert!(body.trim_end().ends_with(end) && body.ends_with(' '));
        let fault = json!({"kind": "padded", "bytes": 70_000, "chunked": true, "times": 1});
        target.control("POST", "fault", fault);
        let answer = target.raw(headers, request);
        let (head, body) = split(&answer);
        assert!(head.contains("transfer-encoding: chunked") && !head.contains("length"), "{head}");
        assert!(body.len() > 70_000);
    }
    target.control("POST", "fault", json!({"kind": "padded", "bytes": 1, "times": 1}));
    let answer = target.raw(LIST_KEYS, "{}");
    assert!(answer.ends_with('}'), "an answer that is longer already stays as it is: {answer}");
}

#[test]
fn an_endless_answer_goes_on_for_as_long_as_somebody_reads() {
    let target = ours();
    let address = target.url().replace("http://", "");
    for (headers, request, status) in [(LIST_KEYS, "{}", None), (WHO_AM_I, FORM, Some(500))] {
        let fault = json!({"kind": "endless", "times": 1, "status": status});
        target.control("POST", "fault", fault);
        let mut stream = TcpStream::connect(&address).expect("a connection");
        let length = request.len();
        write!(
            stream,
            "POST / HTTP/1.1\r\nHost: {address}\r\n{headers}\
             Content-Length: {length}\r\n\r\n{request}"
        )
        .expect("a request");
        let mut answer = vec![0; 4 << 20];
        stream.read_exact(&mut answer).expect("as much as we like");
        let answer = String::from_utf8(answer).expect("text");
        let (head, body) = split(&answer);
        assert!(head.starts_with(&format!("http/1.1 {}", status.unwrap_or(200))), "{head}");
        assert!(head.contains("transfer-encoding: chunked") && !head.contains("length"), "{head}");
        assert!(body.matches(' ').count() > 4_000_000);
        // The others are served meanwhile.
        assert!(target.raw(LIST_KEYS, "{}").starts_with("HTTP/1.1 200"));
    }
}

#[test]
fn an_endless_answer_can_have_a_length_all_the_same() {
    let target = ours();
    let fault = json!({"kind": "endless", "times": 1, "length": 300_001, "status": 400});
    target.control("POST", "fault", fault);
    let answer = target.raw(LIST_KEYS, "{}");
    let (head, body) = split(&answer);
    assert!(head.starts_with("http/1.1 400") && head.contains("content-length: 300001"), "{head}");
    assert_eq!(body, " ".repeat(300_001));
}

#[test]
fn a_trickle_arrives_byte_by_byte() {
    let target = ours();
    target.control("POST", "fault", json!({"kind": "trickle", "times": 1, "millis": 20}));
    let start = Instant::now();
    let answer = target.raw(LIST_KEYS, "{}");
    let (head, body) = split(&answer);
    assert_eq!(body, r#"{"Keys":[],"Truncated":false}"#);
    assert!(head.contains(&format!("content-length: {}", body.len())), "{head}");
    assert!(start.elapsed() >= Duration::from_millis(20) * body.len() as u32);
    let padded = json!({"kind": "trickle", "times": 1, "millis": 1, "bytes": 50, "piece": 7});
    target.control("POST", "fault", padded);
    let answer = target.raw(LIST_KEYS, "{}");
    assert_eq!(split(&answer).1, format!("{:50}", r#"{"Keys":[],"Truncated":false}"#));
    let counters = target.control("GET", "counters", Value::Null);
    assert_eq!(counters["by_outcome"], json!({"fault:trickle": 2}));
}
