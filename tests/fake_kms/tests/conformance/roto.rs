//! roto-aws as a child process.

use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

/// The program that PyPI's roto-aws installs.
const PROGRAM: &str = "roto-server";
const ENVIRONMENT: &str = "CMK_TEST_ROTO_AWS";

/// A running roto-aws; dropping it ends the process.
pub struct Roto {
    child: Child,
    port: u16,
}

impl Roto {
    /// Starts `$CMK_TEST_ROTO_AWS` or, if that is not set, `roto-server` from the PATH.
    pub fn start() -> Self {
        let program = std::env::var(ENVIRONMENT).unwrap_or_else(|_| PROGRAM.to_owned());
        // It can't tell which port it chose, so we choose; somebody may take the port in between.
        for _ in 0..5 {
            let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
                .and_then(|listener| listener.local_addr())
                .expect("a free port")
                .port();
            if let Some(roto) = Self::start_on(&program, port) {
                return roto;
            }
        }
        panic!("{program} stopped five times before it listened");
    }

    fn start_on(program: &str, port: u16) -> Option<Self> {
        let spawned = Command::new(program)
            .args(["--ephemeral", "--host", "127.0.0.1", "--port", &port.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn();
        let mut child = spawned.unwrap_or_else(|error| {
            panic!(
                "cannot start {program}: {error}. The conformance tests need roto-aws 0.10.1: \
                 `pip install roto-aws==0.10.1`, then set {ENVIRONMENT} to the path of its program \
                 {PROGRAM} or put that on the PATH."
            )
        });
        let stderr = BufReader::new(child.stderr.take().expect("piped"));
        // From here on dropping it ends the process, whatever happens.
        let roto = Self { child, port };
        let (listening, wait) = mpsc::channel();
        // Reads to the end, so that the pipe never fills up.
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                if line.contains("listening on") {
                    let _ = listening.send(());
                }
            }
        });
        wait.recv_timeout(Duration::from_secs(20)).is_ok().then_some(roto)
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }
}

impl Drop for Roto {
    fn drop(&mut self) {
        // An error means that it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
