//! Names the settings to PostgreSQL.

use super::guard::{INPUT, OUTPUT, TENANT, WIRE_TYPE, check_may_define, is_preloading};
use super::values::*;
use crate::pg::compat;
use cmk_error::Result;
use cmk_keyring::shared::limits::RECORDS_MAX;
use pgrx::{GucContext, GucFlags, GucRegistry, GucSetting};
use std::ffi::{CStr, CString};

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
        c"cmk_encrypt.promised_bound",
        c"The revocation bound that you promised your tenants; 0 if none.",
        c"It changes nothing. cmk.check() and monitoring tell where the settings can't keep it.",
        &PROMISED_BOUND,
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
        c"KMS calls per minute that the monitor of a database makes at most.",
        &MONITOR_BUDGET,
        1,
        1_000_000,
    );
    seconds(
        c"cmk_encrypt.rotate_after",
        c"Age of a data key at which the monitor makes a new one for new values. 0 for never.",
        c"cmk.alter_tenant_rotation() says otherwise for a tenant.",
        &ROTATE_AFTER,
    );
    number(
        c"cmk_encrypt.rotate_after_values",
        c"Values sealed under a data key after which the monitor makes a new one. 0 for no limit.",
        &ROTATE_AFTER_VALUES,
        0,
        i32::MAX,
    );
    seconds(
        c"cmk_encrypt.shred_delay",
        c"How long a tenant has to be suspended before cmk.shred_tenant() destroys its data keys.",
        c"Unless it is told to do so immediately, which the certificate says.",
        &SHRED_DELAY,
    );
    number(
        c"cmk_encrypt.log_repeats",
        c"How often a session logs the same failure in a minute. 0 for no limit.",
        &LOG_REPEATS,
        0,
        1_000_000,
    );
    number(
        c"cmk_encrypt.tenant_call_budget",
        c"KMS calls per minute for a tenant, on average; as many may come at once. 0 for no limit.",
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
        RECORDS_MAX as i32,
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
        c"KMS clients, one per pair of Region and assumed role, that a process keeps at most.",
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
        c"cmk_encrypt.service_principal",
        c"ARN of the IAM role or user that key policies of tenants are to name; empty to ask STS.",
        &SERVICE_PRINCIPAL,
    );
    string(
        c"cmk_encrypt.local_key_directory",
        c"Directory of the key files of local:NAME keys.",
        &LOCAL_KEY_DIRECTORY,
    );
    GucRegistry::define_bool_guc(
        c"cmk_encrypt.local_keys",
        c"Allows keys of the local provider, local:NAME.",
        c"For development and demonstrations: whoever runs the server holds such keys.",
        &LOCAL_KEYS,
        GucContext::Sighup,
        GucFlags::default(),
    );
    session_settings();
    compat::reserve_prefix(c"cmk_encrypt");
    Ok(())
}

/// Those of protected columns, which every session may make.
fn session_settings() {
    let flags = GucFlags::default();
    GucRegistry::define_enum_guc(
        OUTPUT,
        c"What a client is sent of protected columns: ciphertext (armored envelopes) or plaintext.",
        c"Plaintext takes a grant to decrypt, and only goes to the client: never into tables, COPY or dumps.",
        &COLUMN_OUTPUT,
        GucContext::Userset,
        flags,
    );
    GucRegistry::define_enum_guc(
        INPUT,
        c"What an armored envelope is that is stored in a protected column: an envelope, or text to seal.",
        c"auto: an envelope for superusers and logical replication, and refused for everybody else.",
        &COLUMN_INPUT,
        GucContext::Userset,
        flags,
    );
    GucRegistry::define_string_guc(
        TENANT,
        c"Tenant of the values of those protected columns whose tenant is not in the row.",
        c"",
        &COLUMN_TENANT,
        GucContext::Userset,
        flags,
    );
    GucRegistry::define_enum_guc(
        WIRE_TYPE,
        c"Types that clients see of protected columns: native (cmk_text, cmk_bytea, cmk_jsonb), or text (those that are protected).",
        c"Takes effect if the library is loaded before the statement, for instance by session_preload_libraries.",
        &COLUMN_WIRE_TYPE,
        GucContext::Userset,
        flags,
    );
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

fn seconds(
    name: &'static CStr,
    what: &'static CStr,
    why: &'static CStr,
    setting: &'static GucSetting<i32>,
) {
    let (context, flags) = (GucContext::Sighup, GucFlags::UNIT_S);
    const TEN_YEARS: i32 = 3_650 * 86_400;
    GucRegistry::define_int_guc(name, what, why, setting, 0, TEN_YEARS, context, flags);
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
