//! How far a call has come, and where its last failure was: a call that runs out of time leaves no
//! error behind that says what it was waiting for.
//!
//! Several calls may run side by side on a thread: each has its progress to itself.

use cmk_error::Cause;
use std::cell::RefCell;

/// Where a call failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failed {
    /// The layer, unless it was cut short outside any request.
    pub cause: Option<Cause>,
    /// Whom it was connected to, or was about to be; empty if nobody.
    pub host: Box<str>,
    /// The provider of credentials that was being asked, if one was.
    pub provider: Option<&'static str>,
    /// It took too long.
    pub is_late: bool,
}

#[derive(Default)]
struct Progress {
    /// Where the service is that the call is made to.
    region: String,
    /// Where STS is that our credentials come from.
    sts_region: String,
    /// Whose credentials it needs.
    provider: Option<&'static str>,
    /// Those that are being asked, each on behalf of the one before.
    providers: Vec<&'static str>,
    /// A name is being resolved, or was when time ran out.
    resolving: bool,
    /// It asked somebody something.
    began: bool,
    failed: Option<Failed>,
}

tokio::task_local! {
    static PROGRESS: RefCell<Progress>;
}

/// A call: what happens in it is its progress.
pub async fn of_call<R>(call: impl Future<Output = R>) -> R {
    PROGRESS.scope(RefCell::default(), call).await
}

/// The same for what waits for nothing.
#[cfg(test)]
pub fn in_call(work: impl FnOnce()) {
    PROGRESS.sync_scope(RefCell::default(), work);
}

/// Does `work` on the progress of the call that is being driven. Outside of any call there is none.
fn with<R: Default>(work: impl FnOnce(&mut Progress) -> R) -> R {
    PROGRESS.try_with(|progress| work(&mut progress.borrow_mut())).unwrap_or_default()
}

/// It is made to this Region, and sessions come from an STS in that one.
pub fn in_regions(region: &str, sts_region: &str) {
    with(|progress| {
        progress.region = region.to_owned();
        progress.sts_region = sts_region.to_owned();
    });
}

/// The Region that is asked: that of STS while a provider of credentials is, or was last.
pub fn region() -> String {
    with(|progress| {
        let of_provider = progress.failed.as_ref().is_some_and(|failed| failed.provider.is_some());
        match of_provider || !progress.providers.is_empty() {
            true => progress.sts_region.clone(),
            false => progress.region.clone(),
        }
    })
}

/// The last failure, if nothing has succeeded since.
pub fn failed() -> Option<Failed> {
    with(|progress| progress.failed.clone())
}

/// It needs credentials of this provider.
pub fn needs(provider: Option<&'static str>) {
    with(|progress| progress.provider = provider);
}

/// Its time is over. A call that has asked nobody yet waited for credentials that another call had
/// asked for.
pub fn cut_short() {
    with(|progress| {
        if let (false, provider @ Some(_)) = (progress.began, progress.provider) {
            let host = "".into();
            progress.failed = Some(Failed { cause: None, host, provider, is_late: true });
        }
    });
}

/// A request failed, or was cut short.
fn fail(cause: Cause, host: &str, is_late: bool) {
    with(|progress| {
        let provider = progress.providers.last().copied();
        progress.failed = Some(Failed { cause: Some(cause), host: host.into(), provider, is_late });
    });
}

/// A provider of credentials is being asked while this lives.
pub struct Asking {
    answered: bool,
}

impl Asking {
    /// From now on.
    pub fn begin(provider: &'static str) -> Self {
        with(|progress| {
            (progress.failed, progress.began) = (None, true);
            progress.providers.push(provider);
        });
        Self { answered: false }
    }

    /// It answered, with credentials or without.
    pub fn answered(mut self) {
        self.answered = true;
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        with(|progress| {
            let provider = progress.providers.pop();
            if !self.answered && progress.failed.is_none() {
                let host = "".into();
                progress.failed = Some(Failed { cause: None, host, provider, is_late: true });
            }
        });
    }
}

/// A name is being resolved while this lives.
pub struct Resolving {
    ended: bool,
}

impl Resolving {
    /// From now on.
    pub fn begin() -> Self {
        with(|progress| progress.resolving = true);
        Self { ended: false }
    }

    /// It was, or it was found that it can't be.
    pub fn ended(mut self) {
        self.ended = true;
    }
}

impl Drop for Resolving {
    fn drop(&mut self) {
        if self.ended {
            with(|progress| progress.resolving = false);
        }
    }
}

/// A request is on its way while this lives.
pub struct Requesting<C: Fn() -> bool> {
    host: Box<str>,
    proxy: Option<Box<str>>,
    is_connected: C,
    ended: bool,
}

impl<C: Fn() -> bool> Requesting<C> {
    /// From now on.
    pub fn begin(host: Box<str>, proxy: Option<Box<str>>, is_connected: C) -> Self {
        with(|progress| {
            (progress.failed, progress.began) = (None, true);
            progress.resolving = false;
        });
        Self { host, proxy, is_connected, ended: false }
    }

    /// It was answered.
    pub fn answered(mut self) {
        self.ended = true;
    }

    /// It wasn't.
    pub fn failed(mut self, cause: Cause, is_late: bool) {
        self.ended = true;
        self.fail(cause, is_late);
    }

    fn fail(&self, cause: Cause, is_late: bool) {
        let host = match (&self.proxy, cause) {
            (Some(proxy), Cause::Proxy) => proxy,
            _ => &self.host,
        };
        fail(self.in_resolver(cause), host, is_late);
    }

    /// A connection that took too long took it there.
    fn in_resolver(&self, cause: Cause) -> Cause {
        let resolving = with(|progress| progress.resolving);
        match cause {
            Cause::TimeoutConnect if resolving => Cause::Dns,
            cause => cause,
        }
    }
}

impl<C: Fn() -> bool> Drop for Requesting<C> {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        let cause = match (self.is_connected)() {
            true => Cause::TimeoutResponse,
            false if self.proxy.is_some() => Cause::Proxy,
            false => Cause::TimeoutConnect,
        };
        self.fail(cause, true);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told() -> Option<(Option<Cause>, String, Option<&'static str>)> {
        failed().map(|it| (it.cause, it.host.into_string(), it.provider))
    }

    fn request(connected: bool) -> Requesting<impl Fn() -> bool> {
        Requesting::begin("kms.example".into(), None, move || connected)
    }

    #[test]
    fn what_is_cut_short_says_where() {
        in_call(cut_short);
    }

    fn cut_short() {
        let host = || "kms.example".to_owned();
        drop(request(false));
        assert_eq!(told(), Some((Some(Cause::TimeoutConnect), host(), None)));
        drop(request(true));
        assert_eq!(told(), Some((Some(Cause::TimeoutResponse), host(), None)));
        let unconnected = request(false);
        drop(Resolving::begin());
        drop(unconnected);
        assert_eq!(told(), Some((Some(Cause::Dns), host(), None)));
        let resolved = request(false);
        Resolving::begin().ended();
        drop(resolved);
        assert_eq!(told(), Some((Some(Cause::TimeoutConnect), host(), None)));
        let proxy = || Some("proxy.example".into());
        drop(Requesting::begin(host().into(), proxy(), || false));
        assert_eq!(told(), Some((Some(Cause::Proxy), "proxy.example".to_owned(), None)));
        Requesting::begin(host().into(), proxy(), || false).failed(Cause::Trust, false);
        assert_eq!(told(), Some((Some(Cause::Trust), host(), None)));
        request(true).answered();
        assert_eq!(told(), None);
    }

    #[test]
    fn the_innermost_provider_is_the_one_that_hangs() {
        in_call(innermost);
        in_call(|| assert_eq!(told(), None));
    }

    fn innermost() {
        let outer = Asking::begin("assume_role");
        let inner = Asking::begin("imds");
        drop(request(true));
        drop(inner);
        drop(outer);
        assert_eq!(failed().and_then(|failed| failed.provider), Some("imds"));
        let outer = Asking::begin("assume_role");
        Asking::begin("imds").answered();
        drop(outer);
        assert_eq!(told(), Some((None, String::new(), Some("assume_role"))));
    }

    #[test]
    fn who_asked_nobody_waited_for_credentials_that_another_call_had_asked_for() {
        in_call(|| {
            let _asking = Asking::begin("imds");
            in_call(|| {
                needs(Some("imds"));
                assert_eq!(told(), None, "it may yet get them");
                super::cut_short();
                assert_eq!(told(), Some((None, String::new(), Some("imds"))));
            });
            in_call(|| {
                needs(Some("imds"));
                request(true).answered();
                super::cut_short();
                assert_eq!(told(), None);
            });
        });
    }
}
