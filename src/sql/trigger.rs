//! The trigger on every registry table.

use pgrx::prelude::*;

#[pg_schema]
mod cmk {
    use crate::pg::invalidation;
    use pgrx::prelude::*;
    use std::convert::Infallible;

    /// After any statement that may have changed the table, including COPY, TRUNCATE and what a DBA types.
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
