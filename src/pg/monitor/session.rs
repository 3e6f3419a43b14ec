//! The connection of a monitor or a renewer: a superuser's, in a database that others may own.

use crate::pg::{compat, elog};
use cmk_error::quoted;
use pgrx::bgworkers::BackgroundWorker;
use pgrx::pg_sys::panic::CaughtError;
use pgrx::{PgTryBuilder, pg_sys};
use std::ffi::CStr;
use std::panic::AssertUnwindSafe;

/// What a database's owner could have set for it (ALTER DATABASE … SET) to have a superuser run
/// their code, or to keep the monitor from its work. As autovacuum does.
const SETTINGS: &[(&CStr, &CStr)] = &[
    (c"search_path", c"pg_catalog, pg_temp"),
    (c"default_transaction_read_only", c"off"),
    (c"default_transaction_isolation", c"read committed"),
    (c"default_transaction_deferrable", c"off"),
    (c"statement_timeout", c"0"),
    // Nobody is to keep it from watching keys: what it takes, it takes when that is free. The rest,
    // such as the trail's lock of a commit that waits for a standby, it leaves for later.
    (c"lock_timeout", c"1s"),
    (c"idle_in_transaction_session_timeout", c"0"),
    (c"row_security", c"off"),
    // Whoever may create triggers on a table of ours would run as superuser. Only its owner can
    // make one that fires all the same.
    (c"session_replication_role", c"replica"),
    (c"client_min_messages", c"error"),
    (c"synchronous_commit", c"local"),
];

/// What to connect to.
pub enum Database<'a> {
    /// None: to the shared catalogs.
    None,
    /// By its name.
    Named(&'a str),
    /// By its object id.
    Numbered(u32),
}

pub fn connect(database: Database<'_>) {
    match database {
        Database::None => BackgroundWorker::connect_worker_to_spi(None, None),
        Database::Named(name) => BackgroundWorker::connect_worker_to_spi(Some(name), None),
        Database::Numbered(id) => {
            BackgroundWorker::connect_worker_to_spi_by_oid(Some(id.into()), None);
        }
    }
    let more = compat::MORE_TIMEOUTS.iter().map(|name| (*name, c"0"));
    for (name, value) in SETTINGS.iter().copied().chain(more) {
        // SAFETY: C strings; on the main thread, once, outside of a transaction.
        unsafe {
            pg_sys::SetConfigOption(
                name.as_ptr(),
                value.as_ptr(),
                pg_sys::GucContext::PGC_SUSET,
                pg_sys::GucSource::PGC_S_OVERRIDE,
            );
        }
    }
}

/// As the bootstrap superuser, whatever role the database's settings name, and without a snapshot,
/// so that waiting for KMS holds no row version back.
pub fn transaction<R>(work: impl FnOnce() -> R) -> R {
    // SAFETY: on the main thread of a worker that is connected to a database, outside of a
    // transaction. An ERROR ends the worker, and with it the transaction.
    unsafe {
        pg_sys::SetCurrentStatementStartTimestamp();
        pg_sys::StartTransactionCommand();
        pg_sys::SetUserIdAndSecContext(pg_sys::Oid::from(pg_sys::BOOTSTRAP_SUPERUSERID), 0);
        let result = work();
        pg_sys::CommitTransactionCommand();
        result
    }
}

/// The same for what may fail without the worker's fault, such as a write. Logs an ERROR and undoes
/// the transaction.
pub fn try_transaction<R>(work: impl FnOnce() -> R) -> Option<R> {
    PgTryBuilder::new(AssertUnwindSafe(|| Some(transaction(work))))
        .catch_others(|error| {
            let message = match &error {
                CaughtError::PostgresError(report) | CaughtError::ErrorReport(report) => {
                    report.message().to_owned()
                }
                CaughtError::RustPanic { ereport, .. } => ereport.message().to_owned(),
            };
            // SAFETY: on the main thread, after an ERROR inside a transaction, as a backend's main
            // loop does.
            unsafe {
                pg_sys::AbortCurrentTransaction();
            }
            let (message, database) = (quoted(&message), quoted(BackgroundWorker::get_extra()));
            elog::log_line(&format!("cmk_encrypt monitor: {message} database={database}"));
            None
        })
        .execute()
}
