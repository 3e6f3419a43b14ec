//! Settings. All are `PGC_SIGHUP`: from `postgresql.conf` or `ALTER SYSTEM`, one value for the whole
//! server, never from a session. A session that could set an endpoint could read data keys, and one that
//! could set the TTL would make the revocation bound nobody's promise.

use cmk_error::{Reason, Result};
use cmk_keyring::Policy;
use cmk_kms::aws::AwsSettings;
use cmk_kms::local::LocalKms;
use pgrx::{GucContext, GucFlags, GucRegistry, GucSetting, pg_sys};
use std::ffi::{CStr, CString};
use std::time::Duration;

/// 5 minutes: short enough to call a revocation prompt, long enough that a busy tenant costs a backend a
/// dozen KMS calls an hour.
static CACHE_TTL: GucSetting<i32> = GucSetting::<i32>::new(300_000);
/// One MiB of locked memory a backend at most.
static CACHE_SIZE: GucSetting<i32> = GucSetting::<i32>::new(1024);
/// 0 stands for two thirds of the hard TTL.
static CACHE_SOFT_TTL: GucSetting<i32> = GucSetting::<i32>::new(0);
/// Several times what KMS takes within a Region.
static REFRESH_WAIT: GucSetting<i32> = GucSetting::<i32>::new(100);
/// 10 a second: a tenant with a data key a day for a year is read in half a minute's budget, and a thousand
/// tenants at their limit stay within the request quota of one Region (AWS KMS Developer Guide, "Quotas").
static TENANT_CALL_BUDGET: GucSetting<i32> = GucSetting::<i32>::new(600);
/// 64 kB of data keys and half a megabyte of records.
static SHARED_KEYRING_SIZE: GucSetting<i32> = GucSetting::<i32>::new(1024);
static MONITOR_DATABASES: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(None);
/// As often as the hard TTL has warm tenants asked for: a tenant that nobody reads costs no more.
static MONITOR_INTERVAL: GucSetting<i32> = GucSetting::<i32>::new(300_000);
static MONITOR_BUDGET: GucSetting<i32> = GucSetting::<i32>::new(300);
static FAILURE_TTL: GucSetting<i32> = GucSetting::<i32>::new(3_000);
static KMS_ENDPOINT_URL: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(None);
static STS_ENDPOINT_URL: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(None);
static KMS_CONNECT_TIMEOUT: GucSetting<i32> = GucSetting::<i32>::new(1_000);
static KMS_ATTEMPT_TIMEOUT: GucSetting<i32> = GucSetting::<i32>::new(2_000);
static KMS_OPERATION_TIMEOUT: GucSetting<i32> = GucSetting::<i32>::new(5_000);
static KMS_MAX_ATTEMPTS: GucSetting<i32> = GucSetting::<i32>::new(3);
/// Clients of AWS KMS that a backend keeps, one a Region and assumed role. Of more, the one not used
/// for longest is dropped, and its role is assumed anew by the next call. A client takes 0.1 MB: the
/// default is 25 MB in a backend that has served as many roles, and nothing in others.
static KMS_CLIENTS: GucSetting<i32> = GucSetting::<i32>::new(256);
static LOCAL_KEYS: GucSetting<bool> = GucSetting::<bool>::new(false);
static LOCAL_KEY_DIRECTORY: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(None);

/// # Errors
/// See [`check_may_define`].
pub fn define() -> Result<()> {
    check_may_define()?;
    const DAY: i32 = 86_400_000;
    milliseconds(
        c"cmk_encrypt.cache_ttl",
        c"Longest time a backend uses an unwrapped data key without asking KMS again.",
        c"This is the revocation bound: a warm backend stops decrypting at most this long after a key's owner revokes it.",
        &CACHE_TTL,
        1_000,
        DAY,
    );
    milliseconds(
        c"cmk_encrypt.cache_soft_ttl",
        c"Age from which a data key is fetched anew ahead of need, plus or minus a tenth.",
        c"0 stands for two thirds of cmk_encrypt.cache_ttl; not below that, nothing is fetched ahead.",
        &CACHE_SOFT_TTL,
        0,
        DAY,
    );
    milliseconds(
        c"cmk_encrypt.refresh_wait",
        c"Longest time that fetching a data key ahead of need may keep a query.",
        c"",
        &REFRESH_WAIT,
        0,
        DAY,
    );
    string(
        c"cmk_encrypt.monitor_databases",
        c"Databases whose tenants' keys are checked in the background, separated by commas.",
        &MONITOR_DATABASES,
    );
    milliseconds(
        c"cmk_encrypt.monitor_interval",
        c"How often the monitor checks a key that nobody uses.",
        c"Keys in use are checked before their data keys reach the soft TTL.",
        &MONITOR_INTERVAL,
        1_000,
        DAY,
    );
    number(
        c"cmk_encrypt.monitor_budget",
        c"KMS calls that the monitor of a database makes in a minute at most.",
        &MONITOR_BUDGET,
        1,
        1_000_000,
    );
    number(
        c"cmk_encrypt.tenant_call_budget",
        c"Data keys that KMS is asked to unwrap for a tenant in a minute at most; 0 for no limit.",
        &TENANT_CALL_BUDGET,
        0,
        1_000_000,
    );
    GucRegistry::define_int_guc(
        c"cmk_encrypt.shared_keyring_size",
        c"Data keys, and tenants, that all processes of the server know in common at most.",
        c"Takes effect if the library is in shared_preload_libraries.",
        &SHARED_KEYRING_SIZE,
        16,
        super::expiry::RECORDS_MAX as i32,
        // A setting of this kind can only be made while the server starts.
        if is_preloading() { GucContext::Postmaster } else { GucContext::Sighup },
        GucFlags::default(),
    );
    milliseconds(
        c"cmk_encrypt.failure_ttl",
        c"How long a failed unwrap is remembered, plus or minus a quarter.",
        c"A revoked or unreachable key costs at most one KMS call in this time: per server if the library is in shared_preload_libraries, else per backend.",
        &FAILURE_TTL,
        0,
        DAY,
    );
    milliseconds(
        c"cmk_encrypt.kms_connect_timeout",
        c"Longest time to connect to KMS.",
        c"",
        &KMS_CONNECT_TIMEOUT,
        10,
        DAY,
    );
    milliseconds(
        c"cmk_encrypt.kms_attempt_timeout",
        c"Longest time for one attempt of a KMS call.",
        c"",
        &KMS_ATTEMPT_TIMEOUT,
        10,
        DAY,
    );
    milliseconds(
        c"cmk_encrypt.kms_operation_timeout",
        c"Longest time for a KMS call with all its attempts, credentials included.",
        c"",
        &KMS_OPERATION_TIMEOUT,
        10,
        DAY,
    );
    number(
        c"cmk_encrypt.kms_max_attempts",
        c"Attempts of a KMS call, the first included.",
        &KMS_MAX_ATTEMPTS,
        1,
        10,
    );
    number(
        c"cmk_encrypt.kms_clients",
        c"KMS clients, one a Region and assumed role, that a backend keeps at most.",
        &KMS_CLIENTS,
        1,
        10_000,
    );
    number(
        c"cmk_encrypt.cache_size",
        c"Data keys that a backend caches at most.",
        &CACHE_SIZE,
        1,
        100_000,
    );
    string(
        c"cmk_encrypt.kms_endpoint_url",
        c"KMS endpoint; empty for the public endpoint of each key's Region.",
        &KMS_ENDPOINT_URL,
    );
    string(
        c"cmk_encrypt.sts_endpoint_url",
        c"STS endpoint; empty for the public endpoint of each key's Region.",
        &STS_ENDPOINT_URL,
    );
    string(
        c"cmk_encrypt.local_key_directory",
        c"Directory of the key files of local:NAME keys.",
        &LOCAL_KEY_DIRECTORY,
    );
    GucRegistry::define_bool_guc(
        c"cmk_encrypt.local_keys",
        c"Allows keys of the embedded provider, local:NAME.",
        c"For development and demonstrations: whoever runs the server holds such keys.",
        &LOCAL_KEYS,
        GucContext::Sighup,
        GucFlags::default(),
    );
    reserve_prefix(c"cmk_encrypt");
    Ok(())
}

/// Whether the settings can be defined now, such that the server's values hold.
///
/// Before the library is loaded anybody may put placeholders under our names. PostgreSQL refuses such
/// values when the settings are defined; but one from `PGOPTIONS`, `ALTER ROLE` or `ALTER DATABASE` has by
/// then pushed the server's own value out, and the compiled-in default would take its place. So the
/// library refuses to load. Preloaded, it defines its settings first, and the question doesn't arise.
///
/// # Errors
/// `settings_overridden`; `loaded_too_late` in the middle of a parallel query, where no setting can be defined.
fn check_may_define() -> Result<()> {
    // SAFETY: a variable of this process, on the main thread.
    if unsafe { pg_sys::IsInParallelMode() } {
        return Err(Reason::LoadedTooLate.into());
    }
    let overridden = all_settings().iter().any(|&setting| {
        // SAFETY: PostgreSQL's array holds valid settings, each with a C string for its name.
        let (name, source) = unsafe { (CStr::from_ptr((*setting).name), (*setting).reset_source) };
        name.to_bytes().starts_with(b"cmk_encrypt.") && source > pg_sys::GucSource::PGC_S_ARGV
    });
    if overridden { Err(Reason::SettingsOverridden.into()) } else { Ok(()) }
}

/// PostgreSQL's own array, valid until a setting is added.
fn all_settings() -> &'static [*mut pg_sys::config_generic] {
    // SAFETY: on the main thread; length and array belong together.
    unsafe {
        #[cfg(any(feature = "pg14", feature = "pg15"))]
        let (settings, count) = (pg_sys::get_guc_variables(), pg_sys::GetNumConfigOptions());
        #[cfg(not(any(feature = "pg14", feature = "pg15")))]
        let (settings, count) = {
            let mut count = 0;
            (pg_sys::get_guc_variables(&mut count), count)
        };
        std::slice::from_raw_parts(settings, count as usize)
    }
}

fn milliseconds(
    name: &'static CStr,
    what: &'static CStr,
    why: &'static CStr,
    setting: &'static GucSetting<i32>,
    least: i32,
    most: i32,
) {
    let (context, flags) = (GucContext::Sighup, GucFlags::UNIT_MS);
    GucRegistry::define_int_guc(name, what, why, setting, least, most, context, flags);
}

fn number(
    name: &'static CStr,
    what: &'static CStr,
    setting: &'static GucSetting<i32>,
    least: i32,
    most: i32,
) {
    let (context, flags) = (GucContext::Sighup, GucFlags::default());
    GucRegistry::define_int_guc(name, what, c"", setting, least, most, context, flags);
}

fn string(name: &'static CStr, what: &'static CStr, setting: &'static GucSetting<Option<CString>>) {
    let (context, flags) = (GucContext::Sighup, GucFlags::SUPERUSER_ONLY);
    GucRegistry::define_string_guc(name, what, c"", setting, context, flags);
}

/// A misspelt `cmk_encrypt.something` is an error, not a silent placeholder.
fn reserve_prefix(prefix: &'static CStr) {
    #[cfg(feature = "pg14")]
    {
        unsafe extern "C-unwind" {
            fn EmitWarningsOnPlaceholders(class_name: *const std::ffi::c_char);
        }
        // SAFETY: a C string; called on the main thread from _PG_init.
        unsafe { EmitWarningsOnPlaceholders(prefix.as_ptr()) }
    }
    #[cfg(not(feature = "pg14"))]
    // SAFETY: a C string; called on the main thread from _PG_init.
    unsafe {
        pg_sys::MarkGUCPrefixReserved(prefix.as_ptr());
    }
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

/// True in the postmaster, while it loads `shared_preload_libraries`.
pub fn is_preloading() -> bool {
    // SAFETY: a variable of this process, on the main thread.
    unsafe { pg_sys::process_shared_preload_libraries_in_progress }
}

pub fn shared_size() -> usize {
    SHARED_KEYRING_SIZE.get().unsigned_abs() as usize
}

/// Longest that a KMS call takes, and a little more.
pub fn patience() -> Duration {
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
        patience: patience().as_nanos() as u64,
        budget: TENANT_CALL_BUDGET.get().unsigned_abs(),
        capacity: CACHE_SIZE.get().unsigned_abs() as usize,
    }
}

/// Names as they are written, case included; empty: no monitor. What is too long for a name is none.
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

/// KMS calls a minute.
pub fn monitor_budget() -> u32 {
    MONITOR_BUDGET.get().unsigned_abs()
}

pub fn aws() -> AwsSettings {
    AwsSettings {
        kms_endpoint: text(&KMS_ENDPOINT_URL),
        sts_endpoint: text(&STS_ENDPOINT_URL),
        connect_timeout: duration(&KMS_CONNECT_TIMEOUT),
        attempt_timeout: duration(&KMS_ATTEMPT_TIMEOUT),
        operation_timeout: duration(&KMS_OPERATION_TIMEOUT),
        max_attempts: KMS_MAX_ATTEMPTS.get().unsigned_abs(),
        max_clients: KMS_CLIENTS.get().unsigned_abs() as usize,
    }
}

pub fn local_kms() -> LocalKms {
    let directory = text(&LOCAL_KEY_DIRECTORY).filter(|_| LOCAL_KEYS.get());
    LocalKms { directory: directory.map(Into::into) }
}
