//! `cmk_search_token` and `cmk_search_tokens`: for an index of an application's own.
//! `sql/columns/tokens.sql` declares them.

use crate::column::token;
use crate::pg::datum::{Bytea, TextArg, required};
use crate::pg::process::ThisProcess;
use crate::pg::report::{IntoSql, SqlResult};
use cmk_envelope::column::{ColumnTag, Normalization};
use cmk_error::{Reason, Result};
use cmk_keyring::tenant::read_tenant_name;
use pgrx::{pg_extern, pg_sys};

#[pg_extern(sql = false)]
fn cmk_search_token(
    tenant: Option<TextArg<'_>>,
    value: Option<TextArg<'_>>,
    label: Option<TextArg<'_>>,
    normalize: Option<TextArg<'_>>,
    call: pg_sys::FunctionCallInfo,
) -> SqlResult<Option<Bytea>> {
    let Some(value) = value else { return Ok(None) };
    let made = tokens(tenant, value.0, label, normalize, call);
    made.map(|made| made.into_iter().next()).into_sql()
}

#[pg_extern(sql = false)]
fn cmk_search_tokens(
    tenant: Option<TextArg<'_>>,
    value: Option<TextArg<'_>>,
    label: Option<TextArg<'_>>,
    normalize: Option<TextArg<'_>>,
    call: pg_sys::FunctionCallInfo,
) -> SqlResult<Option<Vec<Vec<u8>>>> {
    let Some(value) = value else { return Ok(None) };
    let made = tokens(tenant, value.0, label, normalize, call);
    made.map(|made| Some(made.iter().map(|token| token.as_slice().to_vec()).collect())).into_sql()
}

/// Under each index key that values are found by, the current one first.
fn tokens(
    tenant: Option<TextArg<'_>>,
    value: &[u8],
    label: Option<TextArg<'_>>,
    normalize: Option<TextArg<'_>>,
    call: pg_sys::FunctionCallInfo,
) -> Result<Vec<Bytea>> {
    let tenant = read_tenant_name(required(tenant, "tenant")?.0)?;
    let column = ColumnTag::of(required(label, "label")?.0);
    let normalization = match normalize {
        None => Normalization::None,
        Some(name) => {
            let name = std::str::from_utf8(name.0).ok();
            name.and_then(Normalization::from_name).ok_or(Reason::ColumnOptions)?
        }
    };
    // SAFETY: the call of the function that we are in.
    let process = unsafe { ThisProcess::called(call) };
    let normalized = normalization.apply(value)?;
    let tokens = token::to_look_up(&process, tenant, column, &normalized)?;
    tokens.iter().map(|token| Bytea::copy(&[&token.index_key, &token.value])).collect()
}
