//! Finds the addresses of a host, in a thread that goes when it is done.
//!
//! The usual resolvers panic where no thread can be started. This one says what was missing, and
//! that it was the resolver which took too long.

use super::progress::Resolving;
use aws_smithy_runtime_api::client::dns::{DnsFuture, ResolveDns, ResolveDnsError};
use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, ToSocketAddrs};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};
use tokio::sync::oneshot::{self, Sender};

/// A look-up that takes longer is made once more, for those that ask from then on.
const PATIENCE: Duration = Duration::from_secs(2);

/// The system's resolver.
#[derive(Clone, Copy, Debug)]
pub struct Resolver;

impl ResolveDns for Resolver {
    fn resolve_dns<'a>(&'a self, name: &'a str) -> DnsFuture<'a> {
        DnsFuture::new(async move {
            let resolving = Resolving::begin();
            let found = look_up(name).await.map_err(ResolveDnsError::new);
            resolving.ended();
            found
        })
    }
}

/// Addresses, or the code of the operating system, if it gave one.
type Found = Result<Vec<IpAddr>, Option<i32>>;

/// A host that is being looked up, and who waits for its addresses.
struct LookUp {
    began: Instant,
    waiting: Vec<Sender<Found>>,
}

/// Calls side by side to one host have it looked up once. A host whose look-up hangs delays no
/// other.
static LOOK_UPS: Mutex<BTreeMap<String, LookUp>> = Mutex::new(BTreeMap::new());

fn look_ups() -> MutexGuard<'static, BTreeMap<String, LookUp>> {
    LOOK_UPS.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn look_up(name: &str) -> io::Result<Vec<IpAddr>> {
    let (answer, answered) = oneshot::channel();
    if join(name, answer)
        && let Err(error) = begin(name.to_owned())
    {
        end(name, &Err(error.raw_os_error()));
    }
    // Whoever is to answer does.
    let found = answered.await.unwrap_or(Err(None));
    found.map_err(|code| match code {
        Some(code) => io::Error::from_raw_os_error(code),
        None => io::ErrorKind::NotFound.into(),
    })
}

/// True if the look-up has yet to begin.
fn join(name: &str, answer: Sender<Found>) -> bool {
    let mut look_ups = look_ups();
    if let Some(look_up) = look_ups.get_mut(name) {
        look_up.waiting.push(answer);
        let begins = look_up.began.elapsed() > PATIENCE;
        if begins {
            look_up.began = Instant::now();
        }
        return begins;
    }
    let look_up = LookUp { began: Instant::now(), waiting: vec![answer] };
    look_ups.insert(name.to_owned(), look_up);
    true
}

fn begin(name: String) -> io::Result<()> {
    let work = move || {
        let found = (name.as_str(), 0).to_socket_addrs().map_err(or_no_descriptor);
        let found = found.map(|all| all.map(|address| address.ip()).collect());
        end(&name, &found.map_err(|error| error.raw_os_error()));
    };
    thread::Builder::new().name("cmk_resolver".into()).spawn(work).map(drop)
}

fn end(name: &str, found: &Found) {
    let look_up = look_ups().remove(name);
    for waiting in look_up.into_iter().flat_map(|look_up| look_up.waiting) {
        // Nobody waits any more if time ran out.
        drop(waiting.send(found.clone()));
    }
}

/// A resolver that can open nothing says that there is no such name.
fn or_no_descriptor(error: io::Error) -> io::Error {
    std::fs::File::open("/dev/null").err().unwrap_or(error)
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

    #[test]
    fn who_asks_for_a_host_that_is_being_looked_up_waits_for_that() {
        let ask = |name| {
            let (answer, answered) = oneshot::channel();
            (join(name, answer), answered)
        };
        let (began, one) = ask("shared.invalid");
        let (began_again, other) = ask("shared.invalid");
        let (began_elsewhere, elsewhere) = ask("hanging.invalid");
        assert_eq!((began, began_again, began_elsewhere), (true, false, true));
        let found: Found = Ok(vec![IpAddr::from([127, 0, 0, 1])]);
        end("shared.invalid", &found);
        assert_eq!([one, other].map(|mut one| one.try_recv().unwrap()), [found.clone(), found]);
        // One that hangs is given up by those who ask later.
        look_ups().get_mut("hanging.invalid").unwrap().began -= PATIENCE * 2;
        let (began, later) = ask("hanging.invalid");
        assert!(began && !ask("hanging.invalid").0);
        end("hanging.invalid", &Err(Some(libc::EMFILE)));
        for mut waiting in [elsewhere, later] {
            assert_eq!(waiting.try_recv().unwrap(), Err(Some(libc::EMFILE)));
        }
    }
}
