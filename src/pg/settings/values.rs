//! The settings' values, in the types of those who use them.

use cmk_keyring::policy::Policy;
use cmk_kms::Settings;
#[cfg(feature = "aws")]
use cmk_kms::aws::AwsSettings;
#[cfg(feature = "local")]
use cmk_kms::local::LocalSettings;
use cmk_kms::onboarding::Bounds;
use pgrx::{GucSetting, PostgresGucEnum, pg_sys};
use std::ffi::{CStr, CString};
use std::time::Duration;

/// 5 minutes: short enough to call a revocation prompt, long enough that a busy tenant costs 18 KMS
/// calls per hour.
pub(super) static CACHE_TTL: GucSetting<i32> = GucSetting::<i32>::new(300_000);
/// At most one MiB of locked memory per backend.
pub(super) static CACHE_SIZE: GucSetting<i32> = GucSetting::<i32>::new(1024);
/// 0 stands for two thirds of the hard TTL.
pub(super) static CACHE_SOFT_TTL: GucSetting<i32> = GucSetting::<i32>::new(0);
/// Several times what KMS takes within a Region.
pub(super) static REFRESH_WAIT: GucSetting<i32> = GucSetting::<i32>::new(100);
/// 10 per second: a tenant with a data key per day, for a year, is read in two thirds of a minute's
/// budget, and a thousand tenants at their limit stay within the request quota of one Region (AWS
/// KMS Developer Guide, "Quotas").
pub(super) static TENANT_CALL_BUDGET: GucSetting<i32> = GucSetting::<i32>::new(600);
/// 96 kB of data keys and 688 kB of records: 96 and 672 bytes for each.
pub(super) static SHARED_KEYRING_SIZE: GucSetting<i32> = GucSetting::<i32>::new(1024);
pub(super) static MONITOR_DATABASES: GucSetting<Option<CString>> =
    GucSetting::<Option<CString>>::new(None);
/// As often as the hard TTL has warm tenants asked for: a tenant that nobody reads costs no more.
pub(super) static MONITOR_INTERVAL: GucSetting<i32> = GucSetting::<i32>::new(300_000);
pub(super) static MONITOR_BUDGET: GucSetting<i32> = GucSetting::<i32>::new(6000);
/// 0: nothing was promised.
pub(super) static PROMISED_BOUND: GucSetting<i32> = GucSetting::<i32>::new(0);
/// Enough to see that it goes on; a client that retries without pause wrote 100 MB in a minute.
pub(super) static LOG_REPEATS: GucSetting<i32> = GucSetting::<i32>::new(10);
pub(super) static FAILURE_TTL: GucSetting<i32> = GucSetting::<i32>::new(3_000);
/// 7 days, in seconds: as long as AWS KMS makes the owner of a key wait before it is deleted, at
/// least.
pub(super) static SHRED_DELAY: GucSetting<i32> = GucSetting::<i32>::new(7 * 86_400);
/// A year, in seconds, as AWS KMS and most audits have it: half of the longest originator usage
/// period of a data-encryption key (NIST SP 800-57 Part 1, section 5.3.6).
pub(super) static ROTATE_AFTER: GucSetting<i32> = GucSetting::<i32>::new(365 * 86_400);
/// XAES-256-GCM needs no such limit (2^80 messages). Below 2^32, the limit of NIST SP 800-38D for
/// keys with random nonces of 96 bits, nobody has to look into that.
pub(super) static ROTATE_AFTER_VALUES: GucSetting<i32> = GucSetting::<i32>::new(1_000_000_000);
pub(super) static KMS_ENDPOINT_URL: GucSetting<Option<CString>> =
    GucSetting::<Option<CString>>::new(None);
pub(super) static STS_ENDPOINT_URL: GucSetting<Option<CString>> =
    GucSetting::<Option<CString>>::new(None);
pub(super) static KMS_CONNECT_TIMEOUT: GucSetting<i32> = GucSetting::<i32>::new(1_000);
pub(super) static KMS_ATTEMPT_TIMEOUT: GucSetting<i32> = GucSetting::<i32>::new(2_000);
pub(super) static KMS_OPERATION_TIMEOUT: GucSetting<i32> = GucSetting::<i32>::new(5_000);
pub(super) static KMS_MAX_ATTEMPTS: GucSetting<i32> = GucSetting::<i32>::new(3);
/// Clients of AWS KMS that a process keeps, one per pair of Region and assumed role; of more, the
/// one not used for longest is dropped, and its role is assumed anew by the next call. A client
/// takes 0.1 MB, so the default is 25 MB in a process that has served as many roles; one that
/// serves a few takes a few.
pub(super) static KMS_CLIENTS: GucSetting<i32> = GucSetting::<i32>::new(256);
pub(super) static SERVICE_PRINCIPAL: GucSetting<Option<CString>> =
    GucSetting::<Option<CString>>::new(None);
pub(super) static LOCAL_KEYS: GucSetting<bool> = GucSetting::<bool>::new(false);
pub(super) static LOCAL_KEY_DIRECTORY: GucSetting<Option<CString>> =
    GucSetting::<Option<CString>>::new(None);

/// What a client is sent of protected columns.
#[derive(Clone, Copy, PartialEq, Eq, PostgresGucEnum)]
pub enum Output {
    #[name = c"ciphertext"]
    Ciphertext,
    #[name = c"plaintext"]
    Plaintext,
}

/// What an armored envelope is on its way into a protected column.
#[derive(Clone, Copy, PartialEq, Eq, PostgresGucEnum)]
pub enum Input {
    #[name = c"auto"]
    Auto,
    #[name = c"text"]
    Text,
    #[name = c"envelope"]
    Envelope,
}

/// Type that clients see of protected columns.
#[derive(Clone, Copy, PartialEq, Eq, PostgresGucEnum)]
pub enum WireType {
    #[name = c"native"]
    Native,
    #[name = c"text"]
    Text,
}

/// Nobody gets plaintext without having asked for it: a dump or a tool that knows nothing of the
/// extension gets ciphertext.
pub(super) static COLUMN_OUTPUT: GucSetting<Output> = GucSetting::<Output>::new(Output::Ciphertext);
pub(super) static COLUMN_INPUT: GucSetting<Input> = GucSetting::<Input>::new(Input::Auto);
pub(super) static COLUMN_TENANT: GucSetting<Option<CString>> =
    GucSetting::<Option<CString>>::new(None);
pub(super) static COLUMN_WIRE_TYPE: GucSetting<WireType> =
    GucSetting::<WireType>::new(WireType::Native);

#[inline]
pub fn column_output() -> Output {
    COLUMN_OUTPUT.get()
}

pub fn column_input() -> Input {
    COLUMN_INPUT.get()
}

/// The session's tenant, unless none is set.
pub fn column_tenant() -> Option<CString> {
    COLUMN_TENANT.get().filter(|tenant| !tenant.is_empty())
}

/// Whether [`column_tenant`] is this; copies nothing.
#[inline]
pub fn is_column_tenant(name: Option<&[u8]>) -> bool {
    // SAFETY: PostgreSQL keeps the setting's value there: null, or a C string, which lasts until
    // the setting changes. On the main thread, where nothing changes it meanwhile.
    let value = unsafe {
        let value = *COLUMN_TENANT.as_ptr();
        if value.is_null() { c"" } else { CStr::from_ptr(value) }
    };
    match name {
        Some(name) => !value.is_empty() && value.to_bytes() == name,
        None => value.is_empty(),
    }
}

pub fn column_wire_type() -> WireType {
    COLUMN_WIRE_TYPE.get()
}

fn duration(setting: &GucSetting<i32>) -> Duration {
    Duration::from_millis(setting.get().unsigned_abs().into())
}

#[inline]
fn nanoseconds(setting: &GucSetting<i32>) -> u64 {
    u64::from(setting.get().unsigned_abs()) * 1_000_000
}

fn text(setting: &GucSetting<Option<CString>>) -> Option<String> {
    let text = setting.get()?.to_string_lossy().into_owned();
    (!text.is_empty()).then_some(text)
}

/// Data keys, and tenants, that all processes of the server know in common.
pub fn shared_keyring_size() -> usize {
    SHARED_KEYRING_SIZE.get().unsigned_abs() as usize
}

/// Longest that a KMS call takes, and a little more.
pub fn call_timeout() -> Duration {
    duration(&KMS_OPERATION_TIMEOUT) + Duration::from_secs(1)
}

#[inline]
pub fn ttl() -> u64 {
    nanoseconds(&CACHE_TTL)
}

pub fn policy() -> Policy {
    let ttl = ttl();
    Policy {
        ttl,
        soft_ttl: match nanoseconds(&CACHE_SOFT_TTL) {
            0 => ttl / 3 * 2,
            soft_ttl => soft_ttl,
        },
        refresh_wait: nanoseconds(&REFRESH_WAIT),
        failure_ttl: nanoseconds(&FAILURE_TTL),
        call_timeout: call_timeout().as_nanos() as u64,
        budget: TENANT_CALL_BUDGET.get().unsigned_abs(),
        capacity: CACHE_SIZE.get().unsigned_abs() as usize,
    }
}

/// What owners of keys are told of how long what they allowed is used.
pub fn bounds() -> Bounds {
    let Policy { ttl, soft_ttl, failure_ttl, .. } = policy();
    Bounds {
        cache_ttl: Duration::from_nanos(ttl),
        soft_ttl: Duration::from_nanos(soft_ttl.min(ttl)),
        failure_ttl: Duration::from_nanos(failure_ttl),
        monitor_interval: is_monitored().then(|| duration(&MONITOR_INTERVAL)),
    }
}

/// Whether a monitor looks at the keys of any database.
fn is_monitored() -> bool {
    !monitor_databases().is_empty()
}

/// Names as they are written, case included; empty: no monitor. What is too long for a name is
/// none.
pub fn monitor_databases() -> Vec<String> {
    let list = text(&MONITOR_DATABASES).unwrap_or_default();
    let valid = |name: &&str| (1..pg_sys::NAMEDATALEN as usize).contains(&name.len());
    let names = list.split(',').map(str::trim).filter(valid);
    names.map(str::to_owned).collect()
}

/// In nanoseconds.
pub fn monitor_interval() -> u64 {
    nanoseconds(&MONITOR_INTERVAL)
}

/// The revocation bound that tenants were promised; `None`: none was.
pub fn promised_bound() -> Option<Duration> {
    Some(duration(&PROMISED_BOUND)).filter(|bound| !bound.is_zero())
}

/// How often a process logs the same thing in a minute; 0: as often as it happens.
pub fn log_repeats() -> u64 {
    u64::from(LOG_REPEATS.get().unsigned_abs())
}

/// KMS calls per minute.
pub fn monitor_budget() -> u32 {
    MONITOR_BUDGET.get().unsigned_abs()
}

/// How long a tenant has to be suspended before it is shredded, in seconds.
pub fn shred_delay() -> f64 {
    f64::from(SHRED_DELAY.get())
}

/// Age at which the monitor rotates a data key, in seconds; 0: never.
pub fn rotate_after() -> f64 {
    f64::from(ROTATE_AFTER.get())
}

/// Sealed values at which the monitor rotates a data key; 0: never.
pub fn rotate_after_values() -> i64 {
    ROTATE_AFTER_VALUES.get().into()
}

/// What the providers go by.
pub fn kms() -> Settings {
    let directory = text(&LOCAL_KEY_DIRECTORY).filter(|_| LOCAL_KEYS.get());
    Settings {
        #[cfg(feature = "aws")]
        aws: AwsSettings {
            kms_endpoint: text(&KMS_ENDPOINT_URL),
            sts_endpoint: text(&STS_ENDPOINT_URL),
            connect_timeout: duration(&KMS_CONNECT_TIMEOUT),
            attempt_timeout: duration(&KMS_ATTEMPT_TIMEOUT),
            operation_timeout: duration(&KMS_OPERATION_TIMEOUT),
            max_attempts: KMS_MAX_ATTEMPTS.get().unsigned_abs(),
            max_clients: KMS_CLIENTS.get().unsigned_abs() as usize,
            service_principal: text(&SERVICE_PRINCIPAL),
        },
        #[cfg(feature = "local")]
        local: LocalSettings { directory: directory.map(Into::into) },
    }
}
