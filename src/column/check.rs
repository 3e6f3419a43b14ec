//! The CHECK constraint of a protected column: `cmk.sealed(value, label, tenant, options)`.
//!
//! It looks at an envelope's header only, so it takes no key and no registry, and holds while a
//! dump is restored. It raises instead of returning false, because PostgreSQL would print the whole
//! row of which a constraint is false.

use super::options::Search;
use super::{tags, tenants, token};
use crate::pg::call::Call;
use crate::pg::datum::{Bytea, head};
use crate::pg::identity::current_role;
use crate::pg::process::ThisProcess;
use crate::pg::raw::column_function;
use crate::pg::registry::read;
use cmk_envelope::column::{HEADER_MAX, Header, header};
use cmk_error::{Error, Reason, Result, quoted};
use pgrx::pg_sys;

/// The header of a value, as much of it as is stored out of line.
#[inline]
pub fn header_of(value: pg_sys::Datum) -> Option<Header> {
    header(head(value, HEADER_MAX))
}

/// Longer labels than any column needs are not repeated.
const LABEL_MAX: usize = 255;

/// An error about a column, which its label names.
#[cold]
pub fn of_column(reason: Reason, label: &str) -> Error {
    match label.len() > LABEL_MAX {
        true => reason.into(),
        false => Error::new(reason).with_info(format!("column={}", quoted(label))),
    }
}

fn check(call: Call) -> Result<()> {
    let failed = |reason| of_column(reason, std::str::from_utf8(call.bytes(1)).unwrap_or(""));
    let Some(header) = header_of(call.datum(0)) else { return Err(failed(Reason::NotSealed)) };
    let is_foreign = header.column != tags::of_column(call.bytes(1))
        || call.nullable_bytes(2).is_some_and(|tenant| header.tenant != tags::of_tenant(tenant));
    if is_foreign {
        return Err(failed(Reason::ForeignEnvelope));
    }
    let rule = Search::parse(call.nullable_bytes(3))?.map(|search| search.rule);
    match header.tokens.map(|tokens| tokens.rule) == rule {
        true => Ok(()),
        false => Err(failed(Reason::TokenMissing)),
    }
}

column_function!(column_check, |call| {
    if !call.is_null(0) {
        check(call)?;
    }
    Ok(pg_sys::Datum::from(true))
});

column_function!(column_is_sealed, |call| {
    Ok(pg_sys::Datum::from(header_of(call.datum(0)).is_some()))
});

// `cmk.needs_sealing(value, label, options)`: what `cmk.seal_table` looks for.
column_function!(column_needs_sealing, |call| {
    if call.is_null(0) {
        return Ok(pg_sys::Datum::from(false));
    }
    let search = Search::parse(call.nullable_bytes(2))?;
    let value = head(call.datum(0), HEADER_MAX);
    let needs = token::needs_sealing(&ThisProcess::of(call), value, search.as_ref())?;
    Ok(pg_sys::Datum::from(needs))
});

// `cmk.sealed_for(value)`: whose it is, to whom holds a grant for that tenant; null to others.
column_function!(column_sealed_for, |call| {
    let Some(header) = header_of(call.datum(0)) else { return Ok(call.return_null()) };
    let tenant = match tenants::of(&header.dek_id) {
        Err(error) if error.reason == Reason::UnknownDataKey => return Ok(call.return_null()),
        tenant => tenant?,
    };
    match read::has_grant(current_role(), &tenant)? {
        true => Ok(Bytea::copy(&[tenant.as_bytes()])?.into_datum()),
        false => Ok(call.return_null()),
    }
});

// `cmk.seals(label, tenant)`, in the sealing trigger's WHEN: makes PostgreSQL know on which columns
// the trigger depends. Never called, because the condition around it is always true.
column_function!(column_seals, |_call| Ok(pg_sys::Datum::from(true)));

// `cmk.envelope`: the envelope's bytes; null of what isn't sealed.
column_function!(column_envelope, |call| match header_of(call.datum(0)) {
    Some(_) => Ok(Bytea::copy(&[call.bytes(0)])?.into_datum()),
    None => Ok(call.return_null()),
});
