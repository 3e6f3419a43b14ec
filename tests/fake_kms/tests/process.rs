//! The program: its port file, its control API over HTTP and its reasons to stop.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// A running program that does not outlive its test.
struct Program {
    child: Child,
    port: u16,
    _directory: TempDir,
}

impl Program {
    fn start(arguments: &[&str]) -> Self {
        let directory = TempDir::new().expect("a directory");
        let port_file = directory.path().join("port");
        let child = Command::new(env!("CARGO_BIN_EXE_fake_kms"))
            .args(["--port", "0", "--port-file"])
            .arg(&port_file)
            .args(arguments)
            .stdin(Stdio::piped())
            .spawn()
            .expect("the program");
        let mut program = Self { child, port: 0, _directory: directory };
        program.port = within_ten_seconds(|| read_port(&port_file));
        program
    }

    fn connect(&self) -> TcpStream {
        TcpStream::connect(("127.0.0.1", self.port)).expect("a connection")
    }

    /// In kB
    fn peak_memory(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()));
        let status = status.expect("a process");
        let mut fields = status.lines().filter_map(|line| line.strip_prefix("VmHWM:"));
        let peak = fields.next().and_then(|field| field.split_whitespace().next()?.parse().ok());
        peak.expect("a number of kB")
    }

    fn request(&self, head: &str, body: &str) -> String {
        let mut stream = self.connect();
        let length = body.len();
        write!(
            stream,
            "{head} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
             Content-Length: {length}\r\n\r\n{body}"
        )
        .expect("a request");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        answer
    }

    fn status(&mut self) -> ExitStatus {
        within_ten_seconds(|| self.child.try_wait().expect("a child"))
    }

    fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("a child").is_none()
    }

    fn terminate(&self) {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, Signal::TERM).expect("SIGTERM");
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // An error means that it has stopped already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn read_port(path: &Path) -> Option<u16> {
    let text = fs::read_to_string(path).ok()?;
    Some(text.trim().parse().expect("a port, never half of one"))
}

fn within_ten_seconds<T>(mut attempt: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(result) = attempt() {
            return result;
        }
        assert!(start.elapsed() < Duration::from_secs(10), "it takes too long");
        sleep(Duration::from_millis(20));
    }
}

#[test]
fn control_requests_are_answered_over_http() {
    let program = Program::start(&[]);
    let answer = program.request("GET /_control/health", "");
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with(r#"{"status":"ok"}"#));
    let key = r#"{"region":"eu-west-1","account":"444455556666","key_id":"fake"}"#;
    let answer = program.request("POST /_control/key", key);
    assert!(answer.ends_with(r#"{"arn":"arn:aws:kms:eu-west-1:444455556666:key/fake"}"#));
    for (head, body, status) in [
        ("POST /_control/key", key, "409"),
        ("POST /_control/key", r#"{"region":"eu-west-1"}"#, "400"),
        ("POST /_control/key_state", r#"{"arn":"arn:of:nothing","state":"Disabled"}"#, "404"),
        ("POST /_control/fault", r#"{"kind":"flood","times":1}"#, "400"),
        ("POST /_control/fault", r#"{"kind":"hang","tmes":1}"#, "400"),
        ("POST /_control/fault", r#"{"kind":"padded"}"#, "400"),
        ("POST /_control/fault", r#"{"kind":"expires"}"#, "400"),
        ("POST /_control/access_keys", r#"{"allow":"AKIAFAKE"}"#, "400"),
        ("POST /_control/end_sessions", "{}", "400"),
        ("GET /_control/nothing", "", "404"),
        ("GET /", "", "404"),
    ] {
        let answer = program.request(head, body);
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{head} {body}: {answer}");
        assert!(answer.contains(r#"{"error":"#), "{answer}");
    }
}

#[test]
fn an_endless_answer_takes_little_memory_and_ends_with_its_client() {
    let program = Program::start(&[]);
    let connections = || {
        let entries = fs::read_dir(format!("/proc/{}/fd", program.child.id())).expect("a process");
        let targets = entries.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
        targets.filter(|target| target.to_string_lossy().starts_with("socket:")).count()
    };
    program.request("POST /_control/fault", r#"{"kind":"endless"}"#);
    let (before, peak) = (connections(), program.peak_memory());
    let mut clients: Vec<_> = (0..10).map(|_| program.connect()).collect();
    for client in &mut clients {
        write!(
            client,
            "POST / HTTP/1.1\r\nHost: localhost\r\nX-Amz-Target: TrentService.ListKeys\r\n\r\n"
        )
        .expect("a request");
        client.read_exact(&mut vec![0; 8 << 20]).expect("8 MiB");
    }
    assert_eq!(connections(), before + 10);
    let grown = program.peak_memory() - peak;
    assert!(grown < 2048, "{grown} kB more for ten of 8 MiB that nobody reads on");
    drop(clients);
    within_ten_seconds(|| (connections() == before).then_some(()));
}

#[test]
fn it_stops_on_sigterm() {
    let mut program = Program::start(&[]);
    drop(program.child.stdin.take());
    sleep(Duration::from_millis(200));
    assert!(program.is_running(), "without --until-stdin-closes, the end of stdin is no reason");
    program.terminate();
    assert!(program.status().success());
}

#[test]
fn it_stops_when_stdin_closes_or_before() {
    let mut program = Program::start(&["--until-stdin-closes"]);
    drop(program.child.stdin.take());
    assert!(program.status().success());
    let mut program = Program::start(&["--until-stdin-closes"]);
    program.terminate();
    assert!(program.status().success(), "while stdin is open");
}

#[test]
fn it_stops_with_its_parent() {
    let mut parent = Command::new("sleep").arg("60").spawn().expect("a process");
    let mut program = Program::start(&["--parent-pid", &parent.id().to_string()]);
    sleep(Duration::from_millis(500));
    let lived = program.is_running();
    parent.kill().expect("a running process");
    parent.wait().expect("a child");
    assert!(lived);
    assert!(program.status().success());
}
