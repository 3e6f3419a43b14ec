//! Starting and stopping the server.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use parking_lot::Mutex;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::oneshot;

use crate::control;
use crate::fault::Faults;
use crate::http;
use crate::log::Log;
use crate::store::Store;

/// What all connections share. No lock is held across an `await`.
#[derive(Default)]
pub struct Shared {
    pub store: Mutex<Store>,
    pub faults: Faults,
    pub log: Log,
}

/// A running server on a thread of its own; dropping it stops it and closes every connection.
pub struct Server {
    address: SocketAddr,
    shared: Arc<Shared>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Starts on a port that the system chooses.
    ///
    /// # Errors
    /// When no port can be bound on 127.0.0.1.
    pub fn start() -> io::Result<Self> {
        Self::start_on(0)
    }

    /// Starts on the given port; 0 lets the system choose.
    ///
    /// # Errors
    /// When the port can't be bound on 127.0.0.1.
    pub fn start_on(port: u16) -> io::Result<Self> {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, port))?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared::default());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (stop, stopped) = oneshot::channel();
        let serving = Arc::clone(&shared);
        let thread = thread::Builder::new().name("fake_kms".into()).spawn(move || {
            runtime.block_on(async {
                match TcpListener::from_std(listener) {
                    Ok(listener) => tokio::select! {
                        () = http::serve(listener, serving) => (),
                        // An error means that the `Server` is gone, which is the signal too.
                        _ = stopped => (),
                    },
                    Err(error) => eprintln!("fake_kms cannot listen: {error}"),
                }
            });
        })?;
        Ok(Self { address, shared, stop: Some(stop), thread: Some(thread) })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The endpoint URL for KMS, for STS and for `/_control/`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// One control request without the detour through HTTP: `control("POST", "key", json!({…}))`.
    ///
    /// # Errors
    /// The text that the control API would have answered with status 400 or 404.
    pub fn control(&self, method: &str, path: &str, body: Value) -> Result<Value, String> {
        control::perform(&self.shared, method, path, body).map_err(|refusal| refusal.message)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            eprintln!("the fake_kms thread panicked");
        }
    }
}
