//! The triggers on every registry table (`sql/guards.sql`), and the hook that runs before the table
//! of data keys is dropped.
//!
//! Two things are refused here: changes by roles that don't own the registry, whatever else they
//! may write; and whatever destroys a data key by the way, whoever asks. A data key that is gone
//! takes all values sealed under it along.

use super::identity;
use super::raw::raw_function;
use super::registry::tables::{DATA_KEY, data_key as column};
use super::registry::{invalidation, lock, read, scan};
use super::report::IntoSql;
use cmk_error::{Error, Reason, Result};
use cmk_kms::Purpose;
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

/// The old row and the new one, or the only one first, of a call that [`trigger`] took for a
/// trigger's; null where there is none. They live as long as the call, as their descriptor does.
fn rows(fcinfo: pg_sys::FunctionCallInfo) -> ([pg_sys::HeapTuple; 2], pg_sys::TupleDesc) {
    // SAFETY: called as a trigger.
    unsafe {
        let data = (*fcinfo).context.cast::<pg_sys::TriggerData>();
        ([(*data).tg_trigtuple, (*data).tg_newtuple], (*(*data).tg_relation).rd_att)
    }
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
        if let Some(tenant) = renamed_tenant(fcinfo, &call, &table)? {
            return Err(Error::new(Reason::TenantNameFixed).for_tenant(&tenant));
        }
        if destroys_keys(fcinfo, &call, &table)? {
            return Err(Reason::KeysWouldBeLost.into());
        }
        if wipes_out(&call, &table)? || meddles_with_move(fcinfo, &call, &table)? {
            return Err(Reason::RegistryWrite.into());
        }
        if rewrites_trail(&call, &table)? {
            return Err(Reason::AuditTrail.into());
        }
    }
    if is_of_another_server(&table) {
        return Ok(pg_sys::Datum::null());
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
    let call = trigger(fcinfo)?;
    if let Ok(table) = call.relation() {
        match changed_tenants(fcinfo, &table) {
            Some(tenants) => {
                tenants.iter().for_each(|name| {
                    invalidation::announce_tenant(name, table.oid());
                });
            }
            None => invalidation::announce(table.oid()),
        }
    }
    Ok(pg_sys::Datum::null())
});

/// The tenants that a changed row tells of. `None` if it may concern any tenant: a grant for every
/// tenant, an index key, which plans depend on, and whatever isn't a row.
fn changed_tenants(fcinfo: pg_sys::FunctionCallInfo, table: &PgRelation) -> Option<Vec<String>> {
    if !matches!(table.name(), "tenant" | "data_key" | "access") {
        return None;
    }
    let (rows, descriptor) = rows(fcinfo);
    let mut tenants = Vec::new();
    for row in rows.into_iter().filter(|row| !row.is_null()) {
        if table.name() == "data_key" && text(descriptor, row, column::PURPOSE)? == INDEX {
            return None;
        }
        tenants.push(text(descriptor, row, TENANT)?);
    }
    tenants.dedup();
    (!tenants.is_empty()).then_some(tenants)
}

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

/// Whether a row tells of a publisher's tables by their numbers, which are those of other tables
/// here. A subscription to all tables brings such rows: they are left out. Kept, they would show
/// runs that never were, and one with the number of a run of this server would end the replication.
fn is_of_another_server(table: &PgRelation) -> bool {
    identity::is_apply_worker() && matches!(table.name(), "reencrypt_job" | "reencrypt_failure")
}

/// Whether events that were written down change or go. Rows may come: from a dump, and to a
/// subscriber, whose chains grow and are cut where they came from.
fn rewrites_trail(call: &PgTrigger<'_>, table: &PgRelation) -> Result<bool> {
    let operation = call.op().map_err(|_| Reason::NotATriggerCall)?;
    let follows = match (table.name(), operation) {
        ("audit_event" | "audit_chain", PgTriggerOperation::Insert) => true,
        ("audit_event", PgTriggerOperation::Delete)
        | ("audit_chain", PgTriggerOperation::Delete | PgTriggerOperation::Update) => {
            identity::is_apply_worker()
        }
        ("audit_event" | "audit_chain", _) => false,
        _ => true,
    };
    Ok(!follows)
}

const INDEX: &str = Purpose::Index.name();

/// The first column of these tables.
const TENANT: usize = column::TENANT;

/// The tenant that this row gives another name, with or without data keys: grants, events and the
/// key's policy go by the name, too.
fn renamed_tenant(
    fcinfo: pg_sys::FunctionCallInfo,
    call: &PgTrigger<'_>,
    table: &PgRelation,
) -> Result<Option<String>> {
    let operation = call.op().map_err(|_| Reason::NotATriggerCall)?;
    if !matches!(table.name(), "tenant" | "data_key")
        || !matches!(operation, PgTriggerOperation::Update)
    {
        return Ok(None);
    }
    let ([old, new], descriptor) = rows(fcinfo);
    // Of a statement there is no row.
    if old.is_null() {
        return Ok(None);
    }
    let [was, is] = [old, new].map(|row| text(descriptor, row, TENANT));
    Ok(was.filter(|was| is.as_ref() != Some(was)))
}

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
    let ([old, new], descriptor) = rows(fcinfo);
    if old.is_null() {
        return Ok(false); // before the statement
    }
    let same = |number| same_value(descriptor, old, new, number);
    Ok(match operation {
        PgTriggerOperation::Delete if is_data_key => !is_null(descriptor, old, column::WRAPPED),
        PgTriggerOperation::Update if is_data_key => {
            let is_same_key = column::IDENTITY.into_iter().all(same);
            let wrapping = (column::WRAPPED, column::WRAPPED_BY);
            let is_same_wrapping = same(wrapping.0) && same(wrapping.1);
            // Destroyed by hand: whoever says so twice, by state and by value, means it.
            let is_destroyed = is_null(descriptor, new, wrapping.0) && same(wrapping.1);
            // The publisher put into force what was ready.
            let next = (column::NEXT_WRAPPED, column::NEXT_WRAPPED_BY);
            let bytes = |row, number| bytes(descriptor, row, number);
            let is_moved = identity::is_apply_worker()
                && !is_null(descriptor, old, next.0)
                && bytes(new, wrapping.0) == bytes(old, next.0)
                && bytes(new, wrapping.1) == bytes(old, next.1);
            !(is_same_key && (is_same_wrapping || is_destroyed || is_moved))
        }
        PgTriggerOperation::Delete => has_keys(descriptor, old)?,
        _ => false,
    })
}

/// Whether this row changes where a tenant is being moved to, or what is ready there, past the
/// functions that prove it. A subscriber takes what its publisher's functions did.
fn meddles_with_move(
    fcinfo: pg_sys::FunctionCallInfo,
    call: &PgTrigger<'_>,
    table: &PgRelation,
) -> Result<bool> {
    let columns = match table.name() {
        "tenant" => [c"next_key_uri", c"next_options"],
        "data_key" => [c"next_wrapped", c"next_wrapped_by"],
        _ => return Ok(false),
    };
    let operation = call.op().map_err(|_| Reason::NotATriggerCall)?;
    if !matches!(operation, PgTriggerOperation::Update) || identity::is_apply_worker() {
        return Ok(false);
    }
    let ([old, new], descriptor) = rows(fcinfo);
    if old.is_null() {
        return Ok(false); // before the statement
    }
    Ok(columns.into_iter().any(|name| {
        // SAFETY: a descriptor and a C string. A column that isn't there has a number below 1.
        let number = unsafe { pg_sys::SPI_fnumber(descriptor, name.as_ptr()) };
        let number = usize::try_from(number).unwrap_or_default();
        // To nothing, as whoever destroys a data key by hand does, it may change.
        !is_null(descriptor, new, number) && !same_value(descriptor, old, new, number)
    }))
}

/// Whether the tenant of a row of `cmk.tenant` has data keys.
fn has_keys(descriptor: pg_sys::TupleDesc, row: pg_sys::HeapTuple) -> Result<bool> {
    read::has_data_keys(Some(&text(descriptor, row, TENANT).unwrap_or_default()))
}

fn is_null(descriptor: pg_sys::TupleDesc, row: pg_sys::HeapTuple, number: usize) -> bool {
    let mut null = false;
    // SAFETY: a row and its descriptor; the function checks the number.
    unsafe { pg_sys::SPI_getbinval(row, descriptor, number as i32, &mut null) };
    null
}

/// A column of type `text`; `None` for null, and if it has another type: then it isn't ours.
fn text(descriptor: pg_sys::TupleDesc, row: pg_sys::HeapTuple, column: usize) -> Option<String> {
    // SAFETY: a descriptor; the function checks the number.
    let found = unsafe { pg_sys::SPI_gettypeid(descriptor, column as i32) };
    // SAFETY: the type was checked.
    (found == pg_sys::TEXTOID).then(|| unsafe { value(descriptor, row, column) }).flatten()
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
    match column {
        // SAFETY: rows of a table of ours.
        column::VERSION => unsafe {
            value::<i32>(descriptor, old, column) == value::<i32>(descriptor, new, column)
        },
        _ => bytes(descriptor, old, column) == bytes(descriptor, new, column),
    }
}

/// The bytes of a column of ours that is `bytea`, `text` or `jsonb`.
fn bytes(descriptor: pg_sys::TupleDesc, row: pg_sys::HeapTuple, column: usize) -> Option<Vec<u8>> {
    // SAFETY: a row of a table of ours, whose columns but the version, which nobody asks for here,
    // are of variable length; they are read as they lie there.
    unsafe { value(descriptor, row, column) }
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
