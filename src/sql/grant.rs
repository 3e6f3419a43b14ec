//! `cmk.grant_access` and `cmk.revoke_access`.

use crate::admin::audit::audited;
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
    bound: default!(Option<bool>, "NULL"),
) -> SqlResult<()> {
    let role = role.map(NamedRole::written);
    run("grant_access", tenant, role, (encrypt, decrypt), |it| grant::grant(&it.bound(bound)))
        .into_sql()
}

#[pg_extern(name = "grant_access", schema = "cmk", volatile, parallel_unsafe, security_definer)]
#[search_path(pg_catalog, pg_temp)]
fn grant_access_to_regrole(
    tenant: Option<&str>,
    role: Option<RegRole>,
    encrypt: default!(Option<bool>, true),
    decrypt: default!(Option<bool>, true),
    bound: default!(Option<bool>, "NULL"),
) -> SqlResult<()> {
    let role = role.map(|RegRole(oid)| NamedRole::of(oid));
    run("grant_access", tenant, role, (encrypt, decrypt), |it| grant::grant(&it.bound(bound)))
        .into_sql()
}

#[pg_extern(schema = "cmk", volatile, parallel_unsafe, security_definer)]
#[search_path(pg_catalog, pg_temp)]
fn revoke_access(
    tenant: Option<&str>,
    role: Option<&str>,
    encrypt: default!(Option<bool>, true),
    decrypt: default!(Option<bool>, true),
) -> SqlResult<()> {
    let role = role.map(NamedRole::written);
    run("revoke_access", tenant, role, (encrypt, decrypt), |it| grant::revoke(&it)).into_sql()
}

#[pg_extern(name = "revoke_access", schema = "cmk", volatile, parallel_unsafe, security_definer)]
#[search_path(pg_catalog, pg_temp)]
fn revoke_access_from_regrole(
    tenant: Option<&str>,
    role: Option<RegRole>,
    encrypt: default!(Option<bool>, true),
    decrypt: default!(Option<bool>, true),
) -> SqlResult<()> {
    let role = role.map(|RegRole(oid)| NamedRole::of(oid));
    run("revoke_access", tenant, role, (encrypt, decrypt), |it| grant::revoke(&it)).into_sql()
}

/// # Errors
/// `null_argument`; as [`GrantChange::new`]; those of `work`.
fn run(
    act: &'static str,
    tenant: Option<&str>,
    role: Option<NamedRole>,
    (encrypt, decrypt): (Option<bool>, Option<bool>),
    work: impl FnOnce(GrantChange<'_>) -> Result<()>,
) -> Result<()> {
    let (tenant, role) = (required(tenant, "tenant")?, required(role, "role")?);
    let (encrypt, decrypt) = (required(encrypt, "encrypt")?, required(decrypt, "decrypt")?);
    audited(act, tenant, || work(GrantChange::new(tenant, role, encrypt, decrypt)?))
}
