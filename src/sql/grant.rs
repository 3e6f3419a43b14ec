//! `cmk.grant_access` and `cmk.revoke_access`.

use crate::admin::grant::{self, GrantChange};
use crate::pg::datum::{RegRole, required};
use crate::pg::grantee::NamedRole;
use crate::pg::report::{IntoSql, SqlResult};
use cmk_error::Result;
use pgrx::prelude::*;

#[pg_extern(schema = "cmk", volatile, parallel_unsafe, security_definer)]
#[search_path(pg_catalog, pg_temp)]
fn grant_access(
    tenant: Option<&str>,
    role: Option<&str>,
    encrypt: default!(Option<bool>, true),
    decrypt: default!(Option<bool>, true),
) -> SqlResult<()> {
    let change = change(tenant, role.map(NamedRole::written), encrypt, decrypt);
    change.and_then(|change| grant::grant(&change)).into_sql()
}

#[pg_extern(name = "grant_access", schema = "cmk", volatile, parallel_unsafe, security_definer)]
#[search_path(pg_catalog, pg_temp)]
fn grant_access_to_regrole(
    tenant: Option<&str>,
    role: Option<RegRole>,
    encrypt: default!(Option<bool>, true),
    decrypt: default!(Option<bool>, true),
) -> SqlResult<()> {
    let change = change(tenant, role.map(|RegRole(oid)| NamedRole::of(oid)), encrypt, decrypt);
    change.and_then(|change| grant::grant(&change)).into_sql()
}

#[pg_extern(schema = "cmk", volatile, parallel_unsafe, security_definer)]
#[search_path(pg_catalog, pg_temp)]
fn revoke_access(
    tenant: Option<&str>,
    role: Option<&str>,
    encrypt: default!(Option<bool>, true),
    decrypt: default!(Option<bool>, true),
) -> SqlResult<()> {
    let change = change(tenant, role.map(NamedRole::written), encrypt, decrypt);
    change.and_then(|change| grant::revoke(&change)).into_sql()
}

#[pg_extern(name = "revoke_access", schema = "cmk", volatile, parallel_unsafe, security_definer)]
#[search_path(pg_catalog, pg_temp)]
fn revoke_access_from_regrole(
    tenant: Option<&str>,
    role: Option<RegRole>,
    encrypt: default!(Option<bool>, true),
    decrypt: default!(Option<bool>, true),
) -> SqlResult<()> {
    let change = change(tenant, role.map(|RegRole(oid)| NamedRole::of(oid)), encrypt, decrypt);
    change.and_then(|change| grant::revoke(&change)).into_sql()
}

/// # Errors
/// `null_argument`; as [`GrantChange::new`].
fn change(
    tenant: Option<&str>,
    role: Option<NamedRole>,
    encrypt: Option<bool>,
    decrypt: Option<bool>,
) -> Result<GrantChange<'_>> {
    let (tenant, role) = (required(tenant, "tenant")?, required(role, "role")?);
    let (encrypt, decrypt) = (required(encrypt, "encrypt")?, required(decrypt, "decrypt")?);
    GrantChange::new(tenant, role, encrypt, decrypt)
}
