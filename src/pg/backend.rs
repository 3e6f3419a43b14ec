//! This backend: its keyring, and what the keyring asks of it.

use super::interrupt::{self, WaitEvent};
use super::{invalidation, registry, settings};
use crate::cache::Instant;
use crate::crypto::key::SecretKey;
use crate::error::Result;
use crate::keyring::{Host, Keyring, Policy};
use crate::kms::arn::KeyUri;
use crate::kms::aws::{AwsKms, Clients};
use crate::kms::context::EncryptionContext;
use crate::kms::{Custody, Kms};
use crate::registry::{Permissions, Role, Tenant};
use once_cell::sync::Lazy;
use pgrx::{pg_guard, pg_sys};

/// Made on first use, so never in the postmaster.
static KEYRING: Lazy<Keyring> = Lazy::new(|| {
    // SAFETY: on the main thread of a backend; the callback takes no argument.
    unsafe { pg_sys::before_shmem_exit(Some(on_exit), pg_sys::Datum::from(0_usize)) };
    Keyring::new()
});

static CLIENTS: Lazy<Clients> = Lazy::new(Clients::default);

pub fn keyring() -> &'static Keyring {
    &KEYRING
}

/// Zeroes every data key before the process goes.
#[pg_guard]
extern "C-unwind" fn on_exit(_code: i32, _argument: pg_sys::Datum) {
    KEYRING.cache().clear();
}

/// The PostgreSQL backend that calls.
pub struct Backend;

unsafe extern "C" {
    // Bound again because they can't raise an ERROR and are called for every value: pgrx's bindings
    // set up a jump target around each call.
    safe fn GetUserId() -> pg_sys::Oid;
    safe fn InSecurityRestrictedOperation() -> bool;
}

/// True inside ANALYZE, REFRESH MATERIALIZED VIEW and index builds, where a result would be stored.
#[inline]
pub fn in_security_restricted_operation() -> bool {
    InSecurityRestrictedOperation()
}

impl Host for Backend {
    /// CLOCK_BOOTTIME: monotonic, and it counts a suspended machine's sleep, which must not lengthen a
    /// data key's life.
    #[inline]
    fn now(&self) -> Instant {
        let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: writes a timespec; the clock exists on every kernel that PostgreSQL supports.
        unsafe { libc::clock_gettime(CLOCK, &mut time) };
        time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
    }

    #[inline]
    fn process_id(&self) -> u32 {
        // SAFETY: set once when the process starts.
        unsafe { pg_sys::MyProcPid as u32 }
    }

    #[inline]
    fn role(&self) -> Role {
        Role(GetUserId().to_u32())
    }

    #[inline]
    fn generation(&self) -> u64 {
        invalidation::generation()
    }

    #[inline]
    fn policy(&self) -> Policy {
        settings::policy()
    }

    fn tenant(&self, name: &str) -> Result<Option<Tenant>> {
        registry::tenant(name)
    }

    fn permissions(&self, role: Role, tenant: &str) -> Result<Permissions> {
        registry::permissions(role, tenant)
    }

    fn kms(&self) -> impl Kms {
        Providers
    }
}

#[cfg(target_os = "linux")]
const CLOCK: libc::clockid_t = libc::CLOCK_BOOTTIME;
#[cfg(not(target_os = "linux"))]
const CLOCK: libc::clockid_t = libc::CLOCK_MONOTONIC;

/// Picks the provider by the key's URI, and shows the wait.
pub struct Providers;

impl Providers {
    fn call<R>(&self, custody: &Custody, call: impl FnOnce(&dyn Kms) -> Result<R>) -> Result<R> {
        let _waiting = WaitEvent::start();
        match &custody.key {
            KeyUri::Local(_) => call(&settings::local_kms()),
            KeyUri::Aws(_) => call(&AwsKms {
                clients: &CLIENTS,
                settings: settings::aws(),
                tick: interrupt::tick,
            }),
        }
    }
}

impl Kms for Providers {
    fn generate(&self, custody: &Custody, context: &EncryptionContext<'_>) -> Result<Vec<u8>> {
        self.call(custody, |kms| kms.generate(custody, context))
    }

    fn unwrap(
        &self,
        custody: &Custody,
        wrapped: &[u8],
        context: &EncryptionContext<'_>,
    ) -> Result<SecretKey> {
        self.call(custody, |kms| kms.unwrap(custody, wrapped, context))
    }
}
