//! `cmk.grant_access` and `cmk.revoke_access`.

use crate::error::{Error, Reason, Result};
use crate::pg::datum::{RegRole, required};
use crate::pg::report::SqlResult;
use crate::pg::{registry, write};
use crate::registry::check_tenant_name;
use pgrx::prelude::*;

/// The tenant argument that stands for every tenant, those to come included. NULL in the table.
const EVERY_TENANT: &str = "*";

#[pg_extern(schema = "cmk", volatile, parallel_unsafe, security_definer)]
#[search_path(pg_catalog, pg_temp)]
fn grant_access(
    tenant: Option<&str>,
    role: Option<RegRole>,
    encrypt: default!(Option<bool>, true),
    decrypt: default!(Option<bool>, true),
) -> SqlResult<()> {
    let Change { tenant, role, encrypt, decrypt } = check(tenant, role, encrypt, decrypt)?;
    if !registry::role_exists(role) {
        return Err(Error::new(Reason::AccessArgument).into());
    }
    let conflict = match tenant {
        Some(_) => "(tenant, role)",
        None => "(role) WHERE tenant IS NULL",
    };
    let grant = format!(
        "INSERT INTO cmk.access AS a (tenant, role, encrypt, decrypt) VALUES ($1, $2, $3, $4)
         ON CONFLICT {conflict} DO UPDATE
         SET encrypt = a.encrypt OR excluded.encrypt, decrypt = a.decrypt OR excluded.decrypt"
    );
    write::execute(&grant, &[tenant.into(), role.into(), encrypt.into(), decrypt.into()])?;
    Ok(())
}

/// Takes back what is named and leaves the rest; a grant of nothing goes altogether. The role may be gone.
#[pg_extern(schema = "cmk", volatile, parallel_unsafe, security_definer)]
#[search_path(pg_catalog, pg_temp)]
fn revoke_access(
    tenant: Option<&str>,
    role: Option<RegRole>,
    encrypt: default!(Option<bool>, true),
    decrypt: default!(Option<bool>, true),
) -> SqlResult<()> {
    const OF_GRANT: &str = "tenant IS NOT DISTINCT FROM $1 AND role = $2";
    let Change { tenant, role, encrypt, decrypt } = check(tenant, role, encrypt, decrypt)?;
    let arguments = [tenant.into(), role.into(), encrypt.into(), decrypt.into()];
    // All or what is left of it: a row that allows nothing isn't representable.
    let nothing_left = "(NOT encrypt OR $3) AND (NOT decrypt OR $4)";
    write::execute(
        &format!("DELETE FROM cmk.access WHERE {OF_GRANT} AND {nothing_left}"),
        &arguments,
    )?;
    write::execute(
        &format!(
            "UPDATE cmk.access SET encrypt = encrypt AND NOT $3, decrypt = decrypt AND NOT $4
              WHERE {OF_GRANT}"
        ),
        &arguments,
    )?;
    Ok(())
}

/// What to allow or take back, checked.
struct Change<'a> {
    /// `None`: every tenant.
    tenant: Option<&'a str>,
    role: pg_sys::Oid,
    encrypt: bool,
    decrypt: bool,
}

/// # Errors
/// `null_argument`, `access_argument`, `tenant_name`, `unknown_tenant`, `read_only`.
fn check(
    tenant: Option<&str>,
    role: Option<RegRole>,
    encrypt: Option<bool>,
    decrypt: Option<bool>,
) -> Result<Change<'_>> {
    write::require_writable()?;
    let (tenant, RegRole(role)) = (required(tenant, "tenant")?, required(role, "role")?);
    let (encrypt, decrypt) = (required(encrypt, "encrypt")?, required(decrypt, "decrypt")?);
    if !(encrypt || decrypt) {
        return Err(Reason::AccessArgument.into());
    }
    if tenant == EVERY_TENANT {
        return Ok(Change { tenant: None, role, encrypt, decrypt });
    }
    check_tenant_name(tenant)?;
    match registry::tenant(tenant)? {
        Some(_) => Ok(Change { tenant: Some(tenant), role, encrypt, decrypt }),
        None => Err(Error::new(Reason::UnknownTenant).for_tenant(tenant)),
    }
}
