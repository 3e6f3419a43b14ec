//! A row on its way into a table, in a BEFORE trigger.

use super::call::Call;
use super::datum::content;
use super::protection::{self, Protection};
use cmk_error::{Reason, Result};
use pgrx::{PgMemoryContexts, pg_sys};

/// What a trigger was called with.
#[derive(Clone, Copy)]
pub struct Row {
    data: *mut pg_sys::TriggerData,
    new: pg_sys::HeapTuple,
    /// Null unless a row is changed.
    old: pg_sys::HeapTuple,
}

/// Rows are BEFORE, FOR EACH ROW, INSERT or UPDATE (PostgreSQL's trigger.h).
const EVENT_UPDATE: u32 = 0x2;
const EVENT_OPERATION: u32 = 0x3;
const EVENT_DELETE: u32 = 0x1;
const EVENT_ROW: u32 = 0x4;
const EVENT_BEFORE: u32 = 0x8;
const EVENT_TIMING: u32 = 0x18;

impl Row {
    /// # Errors
    /// `not_a_trigger_call` unless called BEFORE INSERT OR UPDATE FOR EACH ROW.
    pub fn of(call: Call) -> Result<Self> {
        // SAFETY: the running call; its context's type is looked at before it is used as that.
        unsafe {
            let data = (*call.raw()).context.cast::<pg_sys::TriggerData>();
            if data.is_null() || (*data).type_ != pg_sys::NodeTag::T_TriggerData {
                return Err(Reason::NotATriggerCall.into());
            }
            let event = (*data).tg_event;
            let operation = event & EVENT_OPERATION;
            let is_before_row = event & EVENT_ROW != 0 && event & EVENT_TIMING == EVENT_BEFORE;
            if !is_before_row || operation == EVENT_DELETE {
                return Err(Reason::NotATriggerCall.into());
            }
            Ok(match operation == EVENT_UPDATE {
                true => Self { data, new: (*data).tg_newtuple, old: (*data).tg_trigtuple },
                false => Self { data, new: (*data).tg_trigtuple, old: std::ptr::null_mut() },
            })
        }
    }

    fn relation(self) -> pg_sys::Relation {
        // SAFETY: the trigger's table, open.
        unsafe { (*self.data).tg_relation }
    }

    fn descriptor(self) -> pg_sys::TupleDesc {
        // SAFETY: the trigger's table, open.
        unsafe { (*self.relation()).rd_att }
    }

    /// Object id of the table.
    pub fn table_oid(self) -> pg_sys::Oid {
        // SAFETY: the trigger's table, open.
        unsafe { (*self.relation()).rd_id }
    }

    /// Columns that there are, with their number, type and modifier; dropped ones left out.
    pub fn columns(self) -> Vec<(pg_sys::AttrNumber, pg_sys::Oid, i32)> {
        // SAFETY: the table's descriptor, which outlives what is copied here.
        let descriptor = unsafe { pgrx::PgTupleDesc::from_pg_unchecked(self.descriptor()) };
        let columns = descriptor.iter().filter(|column| !column.attisdropped);
        columns.map(|column| (column.attnum, column.atttypid, column.atttypmod)).collect()
    }

    /// What the CHECK constraints of the table say of protected columns.
    pub fn protections(self) -> Vec<Protection> {
        // SAFETY: the trigger's table, open.
        unsafe { protection::of_table(self.relation()) }
    }

    /// The tenant of a column's values, as its constraint or this trigger has it; `None`: the
    /// setting's.
    pub fn tenant(self, protection: &Protection) -> Option<*mut pg_sys::Node> {
        // SAFETY: the running trigger.
        protection.tenant.or_else(|| unsafe {
            protection::tenant_in_when((*(*self.data).tg_trigger).tgqual, &protection.label)
        })
    }

    /// A column of the row as it is to be; `None` for null.
    #[inline]
    pub fn value(self, column: pg_sys::AttrNumber) -> Option<pg_sys::Datum> {
        // SAFETY: a row of the table, and a column that it has.
        unsafe { attribute(self.new, column, self.descriptor()) }
    }

    /// A column of the row as it was; `None` for null, and of a row that is new.
    #[inline]
    pub fn old_value(self, column: pg_sys::AttrNumber) -> Option<pg_sys::Datum> {
        if self.old.is_null() {
            return None;
        }
        // SAFETY: as in value.
        unsafe { attribute(self.old, column, self.descriptor()) }
    }

    /// The trigger's result: the row, with other values in some columns.
    pub fn with(self, columns: &[i32], values: &[pg_sys::Datum]) -> pg_sys::Datum {
        if columns.is_empty() {
            return pg_sys::Datum::from(self.new);
        }
        let nulls = vec![false; columns.len()];
        // SAFETY: the arrays are equally long; the new row lies in the current memory context.
        let changed = unsafe {
            pg_sys::heap_modify_tuple_by_cols(
                self.new,
                self.descriptor(),
                columns.len() as i32,
                columns.as_ptr().cast_mut(),
                values.as_ptr().cast_mut(),
                nulls.as_ptr().cast_mut(),
            )
        };
        pg_sys::Datum::from(changed)
    }
}

/// # Safety
/// A tuple of that descriptor, which has the column.
#[inline]
unsafe fn attribute(
    tuple: pg_sys::HeapTuple,
    column: pg_sys::AttrNumber,
    descriptor: pg_sys::TupleDesc,
) -> Option<pg_sys::Datum> {
    let mut is_null = false;
    // SAFETY: the caller's promise.
    let value = unsafe { pg_sys::heap_getattr(tuple, column.into(), descriptor, &mut is_null) };
    (!is_null).then_some(value)
}

/// The tenant of a row: an expression, ready to be evaluated.
pub enum RowTenant {
    /// A column of type text or varchar.
    Column(pg_sys::AttrNumber),
    Expression(Expression),
}

/// An expression over a row, and what evaluating it takes. It lies in the memory context of the
/// query that the trigger runs in, and goes with it.
pub struct Expression {
    state: *mut pg_sys::ExprState,
    executor: *mut pg_sys::EState,
    slot: *mut pg_sys::TupleTableSlot,
    result_type: pg_sys::Oid,
}

impl RowTenant {
    /// # Safety
    /// `node` is an expression over rows of the table; `context` outlives the result.
    pub unsafe fn prepare(
        row: Row,
        node: *mut pg_sys::Node,
        context: pg_sys::MemoryContext,
    ) -> Self {
        // SAFETY: the caller's promise.
        unsafe {
            let result_type = pg_sys::exprType(node);
            let is_text = [pg_sys::TEXTOID, pg_sys::VARCHAROID].contains(&result_type);
            if let Some(column) = protection::column_of(node).filter(|_| is_text) {
                return Self::Column(column);
            }
            PgMemoryContexts::For(context).switch_to(|_| {
                let executor = pg_sys::CreateExecutorState();
                let state = PgMemoryContexts::For((*executor).es_query_cxt)
                    .switch_to(|_| pg_sys::ExecPrepareExpr(node.cast(), executor));
                let descriptor = pg_sys::CreateTupleDescCopy(row.descriptor());
                let operations = &raw const pg_sys::TTSOpsHeapTuple;
                let slot = pg_sys::MakeSingleTupleTableSlot(descriptor, operations);
                Self::Expression(Expression { state, executor, slot, result_type })
            })
        }
    }

    /// The tenant's name; `None` for null.
    pub fn of<'a>(&self, row: Row) -> Option<&'a [u8]> {
        match self {
            // SAFETY: a text or varchar, which lives as long as the row.
            Self::Column(column) => row.value(*column).map(|value| unsafe { content(value) }),
            Self::Expression(expression) => expression.of(row),
        }
    }
}

impl Expression {
    fn of<'a>(&self, row: Row) -> Option<&'a [u8]> {
        // SAFETY: made by `prepare` for rows of this table. The result is made in the current
        // memory context, that of the trigger's call, where the name stays for the call.
        unsafe {
            let context = match (*self.executor).es_per_tuple_exprcontext.is_null() {
                true => pg_sys::MakePerTupleExprContext(self.executor),
                false => (*self.executor).es_per_tuple_exprcontext,
            };
            pg_sys::ExecForceStoreHeapTuple(row.new, self.slot, false);
            (*context).ecxt_scantuple = self.slot;
            let mut is_null = false;
            let value = pg_sys::ExecEvalExpr(self.state, context, &mut is_null);
            if is_null {
                return None;
            }
            Some(match self.result_type {
                pg_sys::TEXTOID | pg_sys::VARCHAROID => content(value),
                _ => {
                    let (mut output, mut is_varlena) = (pg_sys::InvalidOid, false);
                    pg_sys::getTypeOutputInfo(self.result_type, &mut output, &mut is_varlena);
                    let text = pg_sys::OidOutputFunctionCall(output, value);
                    std::ffi::CStr::from_ptr(text).to_bytes()
                }
            })
        }
    }
}

/// True while rows are written as they come from elsewhere (`session_replication_role`).
#[inline]
pub fn is_replica() -> bool {
    // SAFETY: a variable of this process, on the main thread.
    unsafe { pg_sys::SessionReplicationRole == pg_sys::SESSION_REPLICATION_ROLE_REPLICA as i32 }
}

/// What a trigger keeps from one row to the next: made by the first, dropped with the query.
///
/// # Errors
/// What `make` returns.
pub fn kept<'a, T>(
    call: Call,
    make: impl FnOnce(pg_sys::MemoryContext) -> Result<T>,
) -> Result<&'a mut T> {
    // SAFETY: the call state is PostgreSQL's, and nobody else's business than the function's: what
    // it keeps there is of one type. It lives in `fn_mcxt`, and so does what is kept.
    unsafe {
        let info = (*call.raw()).flinfo;
        if (*info).fn_extra.is_null() {
            let made = make((*info).fn_mcxt)?;
            let mut context = PgMemoryContexts::For((*info).fn_mcxt);
            (*info).fn_extra = context.leak_and_drop_on_delete(made).cast();
        }
        Ok(&mut *(*info).fn_extra.cast::<T>())
    }
}
