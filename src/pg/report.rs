//! From an [`Error`] to PostgreSQL's error: the only place that chooses SQLSTATEs for the server.

// pgrx keeps an error's code, detail and hint only if it is returned as its own, large, type.
#![allow(clippy::result_large_err)]

use super::clock;
use super::elog::{self, log_line};
use super::settings::values;
use cmk_error::{Error, KeyState, SqlState};
use cmk_keyring::shared::history::Change;
use cmk_keyring::shared::record::Record;
use pgrx::pg_sys::panic::{ErrorReport, ErrorReportable};
use pgrx::{PgSqlErrorCode, pg_sys};
use std::ffi::CStr;

/// An SQL function's result. pgrx keeps code, detail and hint of exactly this error type.
pub type SqlResult<T> = Result<T, ErrorReport>;

const fn code(state: SqlState) -> PgSqlErrorCode {
    use PgSqlErrorCode::*;
    match state {
        SqlState::StringDataRightTruncation => ERRCODE_STRING_DATA_RIGHT_TRUNCATION,
        SqlState::NullValueNotAllowed => ERRCODE_NULL_VALUE_NOT_ALLOWED,
        SqlState::CharacterNotInRepertoire => ERRCODE_CHARACTER_NOT_IN_REPERTOIRE,
        SqlState::InvalidParameterValue => ERRCODE_INVALID_PARAMETER_VALUE,
        SqlState::InvalidTextRepresentation => ERRCODE_INVALID_TEXT_REPRESENTATION,
        SqlState::NotNullViolation => ERRCODE_NOT_NULL_VIOLATION,
        SqlState::CheckViolation => ERRCODE_CHECK_VIOLATION,
        SqlState::WrongObjectType => ERRCODE_WRONG_OBJECT_TYPE,
        SqlState::InvalidBinaryRepresentation => ERRCODE_INVALID_BINARY_REPRESENTATION,
        SqlState::ReadOnlySqlTransaction => ERRCODE_READ_ONLY_SQL_TRANSACTION,
        SqlState::DependentObjectsStillExist => ERRCODE_DEPENDENT_OBJECTS_STILL_EXIST,
        SqlState::TriggerProtocolViolated => ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED,
        SqlState::ExternalRoutineInvocation => ERRCODE_EXTERNAL_ROUTINE_INVOCATION_EXCEPTION,
        SqlState::InsufficientPrivilege => ERRCODE_INSUFFICIENT_PRIVILEGE,
        SqlState::UndefinedObject => ERRCODE_UNDEFINED_OBJECT,
        SqlState::DuplicateObject => ERRCODE_DUPLICATE_OBJECT,
        SqlState::OutOfMemory => ERRCODE_OUT_OF_MEMORY,
        SqlState::InsufficientResources => ERRCODE_INSUFFICIENT_RESOURCES,
        SqlState::ObjectNotInPrerequisiteState => ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
        SqlState::LockNotAvailable => ERRCODE_LOCK_NOT_AVAILABLE,
        SqlState::SystemError => ERRCODE_SYSTEM_ERROR,
        SqlState::ConfigFileError => ERRCODE_CONFIG_FILE_ERROR,
    }
}

/// What PostgreSQL shows of an error.
#[cold]
fn report(error: &Error) -> ErrorReport {
    let entry = error.reason.entry();
    ErrorReport::new(code(entry.sqlstate), error.message(), "cmk_encrypt")
        .set_detail(error.detail())
        .set_hint(error.hint())
}

/// Turns a result into that of an SQL function.
pub trait IntoSql<T> {
    /// # Errors
    /// The same, in PostgreSQL's form.
    fn into_sql(self) -> SqlResult<T>;

    /// The same where no result can be returned, or is too slow: raises the error.
    fn or_raise(self) -> T;
}

impl<T> IntoSql<T> for Result<T, Error> {
    #[inline]
    fn into_sql(self) -> SqlResult<T> {
        self.map_err(|error| report(&error))
    }

    #[inline]
    fn or_raise(self) -> T {
        match self {
            Ok(value) => value,
            Err(error) => raise(&error),
        }
    }
}

#[cold]
#[inline(never)]
fn raise<T>(error: &Error) -> T {
    Err(report(error)).unwrap_or_report()
}

/// One line in the server log for a change of a key's state. Clients don't see it.
pub fn log_change(tenant: &str, change: Change, error: Option<&Error>) {
    let name = |state: Option<KeyState>| state.map_or("unknown", KeyState::name);
    let (from, to) = (name(change.from), name(change.to));
    let detail = match error {
        Some(error) => error.clone().for_tenant(tenant).detail(),
        None => format!("tenant={}", cmk_error::quoted(tenant)),
    };
    log_line(&format!("cmk_encrypt key_state={to} was={from} {detail} database={}", database()));
}

/// One line in the server log: KMS takes longer, by its latency in nanoseconds, than a query may
/// wait for a renewal ahead of need.
pub fn log_short_wait(tenant: &str, wait: u64, latency: u64, is_handed_over: bool) {
    let [wait, latency] = [wait, latency].map(|nanos| nanos / 1_000_000);
    let renewed_by = if is_handed_over { "renewer" } else { "query" };
    let (tenant, database) = (cmk_error::quoted(tenant), database());
    log_line(&format!(
        "cmk_encrypt refresh_wait={wait}ms kms_latency={latency}ms renewed_by={renewed_by} \
         tenant={tenant} database={database}"
    ));
}

/// What is known of a key's failure beyond its reason. In an outage also in how many seconds, and
/// so many more, the tenant is dark: until then its data keys serve that are at hand.
pub fn info_of(error: &Error, record: &Record, more: u64) -> Option<String> {
    let info = error.info().map(str::to_owned);
    if error.reason.key_state() == Some(KeyState::Revoked) {
        return info;
    }
    let left = record.warm_until(values::ttl()).saturating_sub(clock::now()) / 1_000_000_000 + more;
    Some(info.map_or(String::new(), |info| info + " ") + &format!("dark_in_seconds={left}"))
}

/// Seconds since the Unix epoch as an ISO 8601 time.
pub fn utc(seconds: i64) -> String {
    use pgrx::datum::datetime_support::{ToIsoString, to_timestamp};
    to_timestamp(seconds as f64).to_utc().to_iso_string() + "Z"
}

/// The name of this database, as it stands in `key=value` lines.
pub fn database() -> String {
    cmk_error::quoted(&database_name())
}

/// The name of this database.
pub fn database_name() -> String {
    // SAFETY: in a transaction on the main thread; the name is a C string in the current memory
    // context.
    let name = unsafe {
        let name = pg_sys::get_database_name(pg_sys::MyDatabaseId);
        if name.is_null() {
            return String::new();
        }
        CStr::from_ptr(name)
    };
    name.to_string_lossy().into_owned()
}

/// Decides for this library that errors carry no backtrace, whatever `RUST_BACKTRACE` says: pgrx
/// would put it into the DETAIL of PostgreSQL's own errors, which clients see.
pub fn disable_backtraces() {
    const NAME: &str = "RUST_LIB_BACKTRACE";
    let before = std::env::var_os(NAME);
    // SAFETY: from `_PG_init`, in a process without other threads. The environment is as before
    // when this returns: other libraries decide for themselves.
    unsafe {
        std::env::set_var(NAME, "0");
        // The standard library looks once, here.
        let _ = std::backtrace::Backtrace::capture();
        match before {
            Some(before) => std::env::set_var(NAME, before),
            None => std::env::remove_var(NAME),
        }
    }
}

/// Tells that a search left a tenant out.
pub fn warn_skipped(error: &Error) {
    let hint = "What is found is not all that there may be: other tenants may have been left out, \
                too. To have an error instead, name the tenant: compare the tenant column in the \
                same query, or SET cmk_encrypt.tenant.";
    elog::warn(
        "values were not searched, because their tenant's key is away",
        &error.detail(),
        hint,
    );
}
