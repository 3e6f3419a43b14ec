//! The triggers on every registry table.

use pgrx::prelude::*;

#[pg_schema]
mod cmk {
    use crate::error::{Error, Reason};
    use crate::pg::{invalidation, registry};
    use pgrx::pg_sys::panic::{ErrorReport, ErrorReportable};
    use pgrx::prelude::*;
    use std::convert::Infallible;

    /// Before any statement that would change the table, and before each row: logical replication runs no
    /// statements.
    #[pg_trigger]
    fn registry_guard<'a>(
        trigger: &'a PgTrigger<'a>,
    ) -> Result<Option<PgHeapTuple<'a, AllocatedByPostgres>>, Infallible> {
        let owned = trigger.relation().is_ok_and(|table| registry::current_role_owns(&table));
        let allowed = if owned { Ok(()) } else { Err(Error::new(Reason::RegistryWrite)) };
        // Raised here: from a trigger, pgrx would turn an Err into XX000.
        allowed.map_err(ErrorReport::from).unwrap_or_report();
        let row = match trigger.op() {
            Ok(PgTriggerOperation::Delete) => trigger.old(),
            _ => trigger.new(),
        };
        Ok(row)
    }

    /// After any change of the table, including COPY, TRUNCATE and what a DBA types.
    #[pg_trigger]
    fn registry_changed<'a>(
        trigger: &'a PgTrigger<'a>,
    ) -> Result<Option<PgHeapTuple<'a, AllocatedByPostgres>>, Infallible> {
        if let Ok(table) = trigger.relation() {
            invalidation::announce(table.oid());
        }
        Ok(None)
    }
}
