//! One client per pair of Region and assumed role. All calls of this process reuse it until its
//! identity is refused, or until there are too many and it is the least recently used.

use super::assumed_role::AssumedRole;
use super::connect::{ClientKey, Made, connect, loader};
use super::failure;
use super::lru_map::LruMap;
use super::settings::AwsSettings;
use aws_config::ConfigLoader;
use aws_credential_types::provider::ProvideCredentials;
use cmk_error::{Reason, Result};
use std::sync::{LazyLock, Mutex, MutexGuard};
use std::time::Duration;

/// How often a client is made anew because its credentials aren't accepted, at most.
const PAUSE: Duration = Duration::from_secs(2);

/// The clients of this process. Made on first use, so never in the postmaster.
pub static CLIENTS: LazyLock<Clients> = LazyLock::new(|| Clients::new(loader));

/// Clients of one set of settings: with another, all are made anew.
pub struct Clients {
    loader: fn() -> Result<ConfigLoader>,
    known: Mutex<Known>,
    /// Held by the call that makes a first client, which waits for nobody. Calls beside it find
    /// that one.
    connecting: tokio::sync::Mutex<()>,
}

struct Known {
    settings: Option<AwsSettings>,
    made: LruMap<ClientKey, Made>,
}

impl Clients {
    /// `loader` gives what every client starts from.
    pub fn new(loader: fn() -> Result<ConfigLoader>) -> Self {
        let known = Mutex::new(Known { settings: None, made: LruMap::new() });
        Self { loader, known, connecting: tokio::sync::Mutex::const_new(()) }
    }

    /// Makes a call. It may be refused for who we are, with credentials that are out of date: the
    /// file was rotated, the instance has another role. A chain of providers asks its sources once,
    /// so a new one is asked whom it takes us for. If that is somebody else, or a tenant's role is
    /// assumed, or our credentials are not accepted at all, then the call is made once more with a
    /// new client: what that one meets is the answer.
    ///
    /// # Errors
    /// As [`connect`]; what the call returns.
    pub async fn call<R>(
        &self,
        settings: &AwsSettings,
        region: &str,
        role: Option<&AssumedRole>,
        call: impl AsyncFn(&Made) -> Result<R>,
    ) -> Result<R> {
        let key = ClientKey { region: region.into(), role: role.cloned() };
        let Some(known) = self.find(settings, &key) else {
            let made = self.make(settings, key).await?;
            made.begin();
            return call(&made).await;
        };
        known.begin();
        let refused = match call(&known).await {
            Err(error) if error.reason == Reason::KeyAccessDenied => error,
            Err(error) if error.reason == Reason::Credentials && known.at.elapsed() > PAUSE => {
                error
            }
            answer => return answer,
        };
        // Another call that was refused, too, may have made a new one meanwhile.
        if let Some(newer) = self.find(settings, &key).filter(|made| made.at > known.at) {
            return call(&newer).await;
        }
        let made = Box::pin(connect((self.loader)()?, settings, &key)).await?;
        if refused.reason == Reason::KeyAccessDenied {
            let current = made.identity.provide_credentials().await;
            current.map_err(|error| failure::undelivered(&error, false))?;
            // A session of a tenant's role may be out of date although we are the same.
            if role.is_none() && made.identity.last() == known.identity.last() {
                return Err(refused);
            }
        }
        self.keep(settings, key, &made);
        call(&made).await
    }

    /// Makes the first client of this key, unless another call just did.
    async fn make(&self, settings: &AwsSettings, key: ClientKey) -> Result<Made> {
        let _connecting = self.connecting.lock().await;
        if let Some(made) = self.find(settings, &key) {
            return Ok(made);
        }
        let made = Box::pin(connect((self.loader)()?, settings, &key)).await?;
        self.keep(settings, key, &made);
        Ok(made)
    }

    fn find(&self, settings: &AwsSettings, key: &ClientKey) -> Option<Made> {
        let mut known = self.known();
        let same = known.settings.as_ref().is_some_and(|of| of.connects_as(settings));
        same.then(|| known.made.find(key)).flatten()
    }

    /// Clients go when the lock is open again: with them go connections and sessions.
    fn keep(&self, settings: &AwsSettings, key: ClientKey, made: &Made) {
        let mut known = self.known();
        let same = known.settings.as_ref().is_some_and(|of| of.connects_as(settings));
        let made_before = match same {
            true => None,
            false => Some(std::mem::replace(&mut known.made, LruMap::new())),
        };
        known.settings = Some(settings.clone());
        let out = known.made.keep(key, made.clone(), settings.max_clients);
        drop(known);
        drop((made_before, out));
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

#[cfg(test)]
mod tests;
