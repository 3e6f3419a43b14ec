//! Finds the addresses of a host, in a thread that goes when it is done.
//!
//! The usual resolvers panic where no thread can be started. This one says what was missing, and
//! that it was the resolver which took too long.

use super::progress::Resolving;
use aws_smithy_runtime_api::client::dns::{DnsFuture, ResolveDns, ResolveDnsError};
use std::io;
use std::net::{IpAddr, ToSocketAddrs};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::thread;
use std::time::Duration;
use tokio::sync::oneshot;

/// Most look-ups at a time: a resolver that hangs may do so for longer than the calls that asked
/// it.
const MOST: usize = 8;

/// How often to see whether one has ended.
const LOOK: Duration = Duration::from_millis(10);

/// The system's resolver.
#[derive(Clone, Copy, Debug)]
pub struct Resolver;

impl ResolveDns for Resolver {
    fn resolve_dns<'a>(&'a self, name: &'a str) -> DnsFuture<'a> {
        DnsFuture::new(async move {
            let resolving = Resolving::begin();
            let found = look_up(name.to_owned()).await.map_err(ResolveDnsError::new);
            resolving.ended();
            found
        })
    }
}

async fn look_up(name: String) -> io::Result<Vec<IpAddr>> {
    let (answer, answered) = oneshot::channel();
    let running = loop {
        match Running::begin() {
            Some(running) => break running,
            None => tokio::time::sleep(LOOK).await,
        }
    };
    thread::Builder::new().name("cmk_resolver".into()).spawn(move || {
        let found = (name.as_str(), 0).to_socket_addrs().map_err(or_no_descriptor);
        drop(running);
        // Nobody waits any more if time ran out.
        drop(answer.send(found.map(|all| all.map(|address| address.ip()).collect())));
    })?;
    answered.await.unwrap_or_else(|_| Err(io::ErrorKind::Interrupted.into()))
}

/// A resolver that can open nothing says that there is no such name.
fn or_no_descriptor(error: io::Error) -> io::Error {
    std::fs::File::open("/dev/null").err().unwrap_or(error)
}

static RUNNING: AtomicUsize = AtomicUsize::new(0);

/// One of the look-ups that run.
struct Running;

impl Running {
    fn begin() -> Option<Self> {
        let below = |running: usize| (running < MOST).then_some(running + 1);
        RUNNING.fetch_update(Relaxed, Relaxed, below).is_ok().then_some(Self)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        RUNNING.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(name: &str) -> Result<Vec<IpAddr>, ResolveDnsError> {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(Resolver.resolve_dns(name))
    }

    #[test]
    fn names_are_resolved_or_it_says_that_they_are_not() {
        assert!(resolve("localhost").unwrap().iter().all(IpAddr::is_loopback));
        resolve("no-such-host.invalid").unwrap_err();
    }
}
