//! SQL under the newest snapshot, whatever the isolation level of the transaction: for what is
//! serialized by a lock of ours, and must not fail because somebody else was here first. And under
//! the snapshot of the query that calls, for functions that such SQL calls.

use cmk_error::{Reason, Result};
use pgrx::datum::DatumWithOid;
use pgrx::spi::Spi;
use pgrx::{FromDatum, pg_sys};
use std::ffi::{CStr, c_char};

/// Runs `work` with the newest snapshot as the one that SQL sees, and that keeps every row that it
/// could see.
pub fn with_snapshot<R>(work: impl FnOnce() -> R) -> R {
    // SAFETY: in a transaction on the main thread. An ERROR in between unwinds, and the
    // transaction's abort releases the snapshot.
    unsafe {
        pg_sys::PushActiveSnapshot(pg_sys::GetLatestSnapshot());
        let result = work();
        pg_sys::PopActiveSnapshot();
        result
    }
}

/// Runs one statement, and returns what `read` makes of each row.
///
/// # Errors
/// `registry_unusable` if SPI refuses. What PostgreSQL itself objects to is raised as PostgreSQL's
/// error.
pub fn select<R>(
    sql: &CStr,
    arguments: &[DatumWithOid<'_>],
    read: impl Fn(&Rows, usize) -> R,
) -> Result<Vec<R>> {
    let types: Vec<_> = arguments.iter().map(DatumWithOid::oid).collect();
    connect(|connection| {
        let statement = Statement::new(connection, sql, &types)?;
        // SAFETY: the arguments that the types are of.
        unsafe { statement.run(arguments, |rows| rows.each(read)) }
    })
}

/// The same with what the query sees that this is called by. Once a transaction has written
/// something, pgrx reads what the transaction sees, which may be older.
///
/// # Errors
/// As [`select`].
pub fn select_as_query<R>(sql: &CStr, read: impl Fn(&Rows, usize) -> R) -> Result<Vec<R>> {
    connect(|connection| {
        let statement = Statement::new(connection, sql, &[])?;
        // SAFETY: without arguments. A function that a query calls has an active snapshot.
        unsafe {
            statement.run_with(pg_sys::GetActiveSnapshot(), true, &[], |rows| rows.each(read))
        }
    })
}

/// Between SPI_connect and SPI_finish.
pub struct Connection(());

/// Runs `work` with a connection.
pub fn connect<R>(work: impl FnOnce(&Connection) -> R) -> R {
    Spi::connect_mut(|_| work(&Connection(())))
}

/// A statement, planned on its first use, as long as the connection is there.
pub struct Statement<'a> {
    plan: pg_sys::SPIPlanPtr,
    arguments: usize,
    _connection: &'a Connection,
}

/// The rows that a statement returned, valid for the call that they are passed to.
pub struct Rows(());

impl Rows {
    /// How many there are.
    pub fn len(&self) -> usize {
        // SAFETY: SPI's own record of the statement that just ran.
        unsafe { pg_sys::SPI_processed as usize }
    }

    fn each<R>(&self, read: impl Fn(&Self, usize) -> R) -> Vec<R> {
        (0..self.len()).map(|row| read(self, row)).collect()
    }

    /// Column `column`, counted from 1, of the first row; `None` for null and without a row. What
    /// is by reference is copied.
    ///
    /// # Safety
    /// The column has the type that `T` stands for.
    pub unsafe fn first<T: FromDatum>(&self, column: i32) -> Option<T> {
        // SAFETY: the caller's promise.
        unsafe { self.get(0, column) }
    }

    /// The same of row `row`, counted from 0.
    ///
    /// # Safety
    /// The column has the type that `T` stands for.
    pub unsafe fn get<T: FromDatum>(&self, row: usize, column: i32) -> Option<T> {
        let mut null = false;
        // SAFETY: SPI's own record of the statement that just ran; the caller's promise.
        unsafe {
            if row >= self.len() {
                return None;
            }
            let table = &*pg_sys::SPI_tuptable;
            let row = *table.vals.add(row);
            let value = pg_sys::SPI_getbinval(row, table.tupdesc, column, &mut null);
            T::from_datum(value, null)
        }
    }
}

impl<'a> Statement<'a> {
    /// # Errors
    /// `registry_unusable` if SPI refuses.
    pub fn new(connection: &'a Connection, sql: &CStr, types: &[pg_sys::Oid]) -> Result<Self> {
        let mut types = types.to_vec();
        // SAFETY: within SPI_connect and SPI_finish, on the main thread; the plan goes with the
        // latter.
        let plan =
            unsafe { pg_sys::SPI_prepare(sql.as_ptr(), types.len() as i32, types.as_mut_ptr()) };
        match plan.is_null() {
            true => Err(Reason::RegistryUnusable.into()),
            false => Ok(Self { plan, arguments: types.len(), _connection: connection }),
        }
    }

    /// Runs it and passes on what it returned.
    ///
    /// # Errors
    /// `registry_unusable` if SPI refuses. What PostgreSQL itself objects to is raised as
    /// PostgreSQL's error.
    ///
    /// # Safety
    /// The arguments have the types that the statement was made with.
    pub unsafe fn run<R>(
        &self,
        arguments: &[DatumWithOid<'_>],
        read: impl FnOnce(&Rows) -> R,
    ) -> Result<R> {
        // SAFETY: the caller's promise; in a transaction on the main thread.
        unsafe { self.run_with(pg_sys::GetLatestSnapshot(), false, arguments, read) }
    }

    /// # Safety
    /// As for [`run`](Self::run); a snapshot that is valid for the call.
    unsafe fn run_with<R>(
        &self,
        snapshot: pg_sys::Snapshot,
        is_read_only: bool,
        arguments: &[DatumWithOid<'_>],
        read: impl FnOnce(&Rows) -> R,
    ) -> Result<R> {
        if arguments.len() != self.arguments {
            return Err(Reason::RegistryUnusable.into());
        }
        let null = pg_sys::Datum::null();
        let values = arguments.iter().map(|it| it.datum().map_or(null, |it| it.sans_lifetime()));
        let mut values: Vec<_> = values.collect();
        let nulls = arguments.iter().map(|it| if it.datum().is_some() { b' ' } else { b'n' });
        let nulls: Vec<_> = nulls.map(|it| it as c_char).collect();
        // SAFETY: within SPI_connect and SPI_finish, on the main thread; the arrays have one entry
        // for each argument and outlive the call. SPI copies the snapshot.
        let ran = unsafe {
            let (values, nulls) = (values.as_mut_ptr(), nulls.as_ptr());
            let (plan, none, fires) = (self.plan, std::ptr::null_mut(), !is_read_only);
            pg_sys::SPI_execute_snapshot(
                plan,
                values,
                nulls,
                snapshot,
                none,
                is_read_only,
                fires,
                0,
            )
        };
        if ran < 0 {
            return Err(Reason::RegistryUnusable.into());
        }
        let result = read(&Rows(()));
        // SAFETY: the rows of this statement, or none; nobody reads them any more.
        unsafe { pg_sys::SPI_freetuptable(pg_sys::SPI_tuptable) };
        Ok(result)
    }
}
