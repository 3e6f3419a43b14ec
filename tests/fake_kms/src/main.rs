//! The server as a program, for tests in other languages.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Parser;
use fake_kms::Server;
use rustix::process::{Pid, test_kill_process};
use tokio::io::{AsyncReadExt, stdin};
use tokio::signal::unix::{SignalKind, signal};

/// A KMS and STS server for tests on 127.0.0.1. Stops on SIGTERM or SIGINT.
#[derive(Parser)]
struct Options {
    /// Port to listen on; 0 lets the system choose
    #[arg(long, default_value_t = 0)]
    port: u16,
    /// File that receives the port once the server listens; without it, the URL goes to stdout
    #[arg(long)]
    port_file: Option<PathBuf>,
    /// Stop as soon as this process is gone
    #[arg(long)]
    parent_pid: Option<i32>,
    /// Stop at end of file on standard input
    #[arg(long)]
    until_stdin_closes: bool,
}

fn main() -> io::Result<()> {
    let options = Options::parse();
    let server = Server::start_on(options.port)?;
    match &options.port_file {
        Some(path) => write_atomically(path, &format!("{}\n", server.address().port()))?,
        None => println!("{}", server.url()),
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let result = runtime.block_on(stop(&options));
    // Tokio reads standard input on a thread that can't be interrupted: don't wait for it.
    runtime.shutdown_background();
    result
}

/// Returns when one of the reasons to stop has come.
async fn stop(options: &Options) -> io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
        () = parent_gone(options.parent_pid), if options.parent_pid.is_some() => Ok(()),
        result = stdin_closed(), if options.until_stdin_closes => result,
    }
}

async fn parent_gone(pid: Option<i32>) {
    let Some(pid) = pid.and_then(Pid::from_raw) else { return };
    // Another user's process answers EPERM, which proves that it lives.
    while test_kill_process(pid) != Err(rustix::io::Errno::SRCH) {
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

async fn stdin_closed() -> io::Result<()> {
    let (mut stdin, mut buffer) = (stdin(), [0; 256]);
    while stdin.read(&mut buffer).await? > 0 {}
    Ok(())
}

/// A reader that polls for the file never sees it half written.
fn write_atomically(path: &Path, text: &str) -> io::Result<()> {
    let mut unfinished = path.as_os_str().to_owned();
    unfinished.push(".unfinished");
    fs::write(&unfinished, text)?;
    fs::rename(&unfinished, path)
}
