//! The triggers on every registry table (`sql/guards.sql`), and the hook that runs before the table
//! of data keys is dropped.
//!
//! Two things are refused here: changes by roles that don't own the registry, whatever else they
//! may write; and whatever destroys a data key by the way, whoever asks. A data key that is gone
//! takes all values sealed under it along.

use super::raw::raw_function;
use super::registry::tables::{DATA_KEY, data_key as column};
use super::registry::{invalidation, lock, read, scan};
use super::report::IntoSql;
use cmk_error::{Error, Reason, Result};
use pgrx::{FromDatum, PgRelation, PgTrigger, PgTriggerOperation, pg_guard, pg_sys};
use std::ffi::c_void;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};

/// Set while one of our functions does what is refused to everybody else.
static PERMITTED: AtomicBool = AtomicBool::new(false);

/// Runs `work`, which may destroy data keys: whoever called asked for exactly that.
pub fn permitted<R>(work: impl FnOnce() -> R) -> R {
    struct Until;
    impl Drop for Until {
        fn drop(&mut self) {
            PERMITTED.store(false, Relaxed);
        }
    }
    PERMITTED.store(true, Relaxed);
    let _until = Until;
    work()
}

/// # Errors
/// `not_a_trigger_call`.
fn trigger<'a>(fcinfo: pg_sys::FunctionCallInfo) -> Result<PgTrigger<'a>> {
    // SAFETY: PostgreSQL's call; whether it is a trigger's is checked.
    let trigger = unsafe { PgTrigger::from_fcinfo(&*fcinfo) };
    trigger.map_err(|_| Error::new(Reason::NotATriggerCall))
}

// Before any statement that would change the table, and before each row: logical replication runs
// no statements.
raw_function!(registry_guard, |fcinfo| {
    let call = trigger(fcinfo)?;
    let table = call.relation().map_err(|_| Reason::NotATriggerCall)?;
    if !lock::current_role_owns(&table) {
        return Err(Reason::RegistryWrite.into());
    }
    if !PERMITTED.load(Relaxed) {
        if destroys_keys(fcinfo, &call, &table)? {
            return Err(Reason::KeysWouldBeLost.into());
        }
        if wipes_out(&call, &table)? {
            return Err(Reason::RegistryWrite.into());
        }
    }
    // SAFETY: called as a trigger. Of a statement there is no row, and then the result is a null
    // pointer.
    let row = unsafe {
        let data = (*fcinfo).context.cast::<pg_sys::TriggerData>();
        match call.op() {
            Ok(PgTriggerOperation::Update) => (*data).tg_newtuple,
            _ => (*data).tg_trigtuple,
        }
    };
    Ok(pg_sys::Datum::from(row))
});

// After any change of the table, including COPY, TRUNCATE and what a DBA types.
raw_function!(registry_changed, |fcinfo| {
    if let Ok(table) = trigger(fcinfo)?.relation() {
        invalidation::announce(table.oid());
    }
    Ok(pg_sys::Datum::null())
});

/// Whether all grants go at once, or what tells whose registry this is, while there is anything to
/// lose.
fn wipes_out(call: &PgTrigger<'_>, table: &PgRelation) -> Result<bool> {
    let operation = call.op().map_err(|_| Reason::NotATriggerCall)?;
    Ok(match (table.name(), operation) {
        ("access" | "home", PgTriggerOperation::Truncate)
        | ("home", PgTriggerOperation::Delete | PgTriggerOperation::Update) => {
            read::has_data_keys(None)?
        }
        _ => false,
    })
}

/// The first column of both tables.
const TENANT: usize = column::TENANT;

/// Whether this statement or row takes a data key away, or makes it another's.
fn destroys_keys(
    fcinfo: pg_sys::FunctionCallInfo,
    call: &PgTrigger<'_>,
    table: &PgRelation,
) -> Result<bool> {
    let is_data_key = match table.name() {
        "data_key" => true,
        "tenant" => false,
        _ => return Ok(false),
    };
    let operation = call.op().map_err(|_| Reason::NotATriggerCall)?;
    if matches!(operation, PgTriggerOperation::Truncate) {
        return read::has_data_keys(None);
    }
    // SAFETY: called as a trigger; rows and descriptor live as long as the call.
    let (old, new, descriptor) = unsafe {
        let data = (*fcinfo).context.cast::<pg_sys::TriggerData>();
        ((*data).tg_trigtuple, (*data).tg_newtuple, (*(*data).tg_relation).rd_att)
    };
    if old.is_null() {
        return Ok(false); // before the statement
    }
    let same = |number| same_value(descriptor, old, new, number);
    Ok(match operation {
        PgTriggerOperation::Delete if is_data_key => !is_null(descriptor, old, column::WRAPPED),
        PgTriggerOperation::Update if is_data_key => {
            let is_same_key = column::IDENTITY.into_iter().all(same);
            // Destroyed by hand: whoever says so twice, by state and by value, means it.
            let destroyed = is_null(descriptor, new, column::WRAPPED);
            !(is_same_key && (destroyed || same(column::WRAPPED)))
        }
        PgTriggerOperation::Delete => has_keys(descriptor, old)?,
        PgTriggerOperation::Update => !same(TENANT) && has_keys(descriptor, old)?,
        _ => false,
    })
}

/// Whether the tenant of a row of `cmk.tenant` has data keys.
fn has_keys(descriptor: pg_sys::TupleDesc, row: pg_sys::HeapTuple) -> Result<bool> {
    // SAFETY: the column is text.
    let name: Option<String> = unsafe { value(descriptor, row, TENANT) };
    read::has_data_keys(Some(&name.unwrap_or_default()))
}

fn is_null(descriptor: pg_sys::TupleDesc, row: pg_sys::HeapTuple, number: usize) -> bool {
    let mut null = false;
    // SAFETY: a row and its descriptor; the function checks the number.
    unsafe { pg_sys::SPI_getbinval(row, descriptor, number as i32, &mut null) };
    null
}

/// # Safety
/// The column has the type that `T` stands for.
unsafe fn value<T: FromDatum>(
    descriptor: pg_sys::TupleDesc,
    row: pg_sys::HeapTuple,
    column: usize,
) -> Option<T> {
    let mut null = false;
    // SAFETY: a row and its descriptor; the caller's promise.
    unsafe {
        let value = pg_sys::SPI_getbinval(row, descriptor, column as i32, &mut null);
        T::from_datum(value, null)
    }
}

fn same_value(
    descriptor: pg_sys::TupleDesc,
    old: pg_sys::HeapTuple,
    new: pg_sys::HeapTuple,
    column: usize,
) -> bool {
    // SAFETY: rows of a table of ours; bytea and text are read as bytes.
    unsafe {
        match column {
            column::VERSION => {
                value::<i32>(descriptor, old, column) == value::<i32>(descriptor, new, column)
            }
            _ => {
                let bytes = |row| value::<Vec<u8>>(descriptor, row, column);
                bytes(old) == bytes(new)
            }
        }
    }
}

// Before commands that could drop the extension, in every session of the database: being called, it
// has the library loaded, and with it the hook below.
raw_function!(drop_guard, |fcinfo| {
    // SAFETY: PostgreSQL's call; the context is looked at before it is used.
    let is_event = unsafe {
        let context = (*fcinfo).context;
        !context.is_null() && (*context).type_ == pg_sys::NodeTag::T_EventTriggerData
    };
    if is_event { Ok(pg_sys::Datum::null()) } else { Err(Reason::NotATriggerCall.into()) }
});

static PREVIOUS: AtomicUsize = AtomicUsize::new(0);

type AccessHook = unsafe extern "C-unwind" fn(
    pg_sys::ObjectAccessType::Type,
    pg_sys::Oid,
    pg_sys::Oid,
    std::ffi::c_int,
    *mut c_void,
);

/// Once per process, or in the postmaster for all its children.
pub fn install() {
    // SAFETY: called from _PG_init on the main thread, the time to set this hook.
    unsafe {
        PREVIOUS.store(pg_sys::object_access_hook.map_or(0, |hook| hook as usize), Relaxed);
        pg_sys::object_access_hook = Some(on_access);
    }
}

/// Called for every object that is dropped, whatever command or cascade got there, and for much
/// else. As in [`executor`](super::executor), other hooks' ERRORs jump over this frame.
unsafe extern "C-unwind" fn on_access(
    access: pg_sys::ObjectAccessType::Type,
    class: pg_sys::Oid,
    object: pg_sys::Oid,
    column: std::ffi::c_int,
    argument: *mut c_void,
) {
    let address = PREVIOUS.load(Relaxed);
    if address != 0 {
        // SAFETY: another library's hook of this type, which was there before ours, with its
        // arguments.
        unsafe {
            let previous = std::mem::transmute::<usize, AccessHook>(address);
            previous(access, class, object, column, argument);
        }
    }
    if access == pg_sys::ObjectAccessType::OAT_DROP && class == pg_sys::RelationRelationId {
        before_drop(object);
    }
}

/// PostgreSQL holds a lock by now that keeps everybody from the table; its rows are still there.
/// Dropping a column counts too. What isn't our table isn't looked at.
#[pg_guard]
extern "C-unwind" fn before_drop(relation: pg_sys::Oid) {
    let is_ours = scan::oid_of(DATA_KEY.name).is_ok_and(|table| table == relation);
    let refused = match is_ours && read::has_data_keys(None).unwrap_or(false) {
        true => Err(Error::new(Reason::KeysWouldBeLost)),
        false => Ok(()),
    };
    refused.or_raise();
}
