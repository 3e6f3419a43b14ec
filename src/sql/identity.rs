//! `cmk.identity`.

use crate::pg::providers::InterruptibleKms;
use crate::pg::report::IntoSql;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

/// As whom this server calls key management services: a row a service that knows such a thing.
#[pg_extern(schema = "cmk", volatile, parallel_unsafe, security_definer)]
#[search_path(pg_catalog, pg_temp)]
#[allow(clippy::type_complexity)] // the row type of the SQL function
fn identity(
    in_region: default!(Option<&str>, "NULL"),
) -> std::result::Result<
    TableIterator<
        'static,
        (
            name!(principal, String),
            name!(session, String),
            name!(account, String),
            name!(credentials, Option<&'static str>),
            name!(region, String),
        ),
    >,
    ErrorReport,
> {
    let told = InterruptibleKms { limit: None }.own_identities(in_region).into_sql()?;
    let rows = told.into_iter().map(|it| {
        let [principal, session, account, region] =
            [it.identity.principal, it.identity.session, it.identity.account, it.region]
                .map(Into::into);
        (principal, session, account, it.credentials, region)
    });
    Ok(TableIterator::new(rows))
}
