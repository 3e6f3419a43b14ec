//! Which database roles may encrypt and decrypt values of which tenants.

use crate::pg::brake::{self, Target};
use crate::pg::grantee::NamedRole;
use crate::pg::registry::tables::ACCESS;
use crate::pg::registry::{read, write};
use cmk_error::{Reason, Result};
use cmk_keyring::tenant::check_tenant_name_length;
use pgrx::datum::DatumWithOid;
use pgrx::pg_sys;

/// The tenant argument that stands for every tenant, those to come included. NULL in the table.
const EVERY_TENANT: &str = "*";

/// What to allow or take back, checked.
pub struct GrantChange<'a> {
    /// `None`: every tenant.
    pub tenant: Option<&'a str>,
    pub role: NamedRole,
    pub encrypt: bool,
    pub decrypt: bool,
}

impl<'a> GrantChange<'a> {
    /// # Errors
    /// `access_argument`, `tenant_name`, `read_only`.
    pub fn new(tenant: &'a str, role: NamedRole, encrypt: bool, decrypt: bool) -> Result<Self> {
        write::require_writable()?;
        if !(encrypt || decrypt) {
            return Err(Reason::AccessArgument.into());
        }
        if tenant == EVERY_TENANT {
            return Ok(Self { tenant: None, role, encrypt, decrypt });
        }
        check_tenant_name_length(tenant)?;
        Ok(Self { tenant: Some(tenant), role, encrypt, decrypt })
    }

    fn arguments(&self) -> [DatumWithOid<'_>; 5] {
        [
            self.tenant.into(),
            self.role.name.as_str().into(),
            self.encrypt.into(),
            self.decrypt.into(),
            self.role.oid.into(),
        ]
    }
}

/// Rows of `cmk.access` that a change is about: of the role, and under its name those of roles that
/// are gone.
const OF_GRANT: &str = "
    (a.tenant OPERATOR(pg_catalog.=) $1 OR a.tenant IS NULL AND $1 IS NULL)
    AND (a.role::pg_catalog.oid OPERATOR(pg_catalog.=) $5 AND $5 OPERATOR(pg_catalog.<>) 0
         OR (a.role::pg_catalog.text OPERATOR(pg_catalog.=) $2
             OR a.role::pg_catalog.text OPERATOR(pg_catalog.=) pg_catalog.concat($2, ' (dropped)'))
            AND NOT EXISTS (SELECT FROM pg_catalog.pg_roles r
                             WHERE r.oid OPERATOR(pg_catalog.=) a.role::pg_catalog.oid))";

/// # Errors
/// `unknown_role`, `unknown_tenant`, `tenant_name`, `read_only`, `registry_write`.
pub fn grant(change: &GrantChange<'_>) -> Result<()> {
    let GrantChange { tenant, role, .. } = change;
    role.require()?;
    tenant.map_or(Ok(()), read::require_registered)?;
    let arguments = change.arguments();
    // A grant that came for a role of this name when there was none has had no effect, and is to
    // have none now.
    let gone = "a.role::pg_catalog.oid OPERATOR(pg_catalog.<>) $5";
    let tidy = format!("DELETE FROM cmk.access a WHERE {OF_GRANT} AND {gone}");
    write::execute(&tidy, &arguments)?;
    let conflict = match tenant {
        Some(_) => "(tenant, cmk.grantee_key(role))",
        None => "(cmk.grantee_key(role)) WHERE tenant IS NULL",
    };
    let grant = format!(
        "INSERT INTO cmk.access AS a (tenant, role, encrypt, decrypt)
         VALUES ($1, $2::pg_catalog.text::cmk.grantee, $3, $4)
         ON CONFLICT {conflict} DO UPDATE
         SET encrypt = a.encrypt OR excluded.encrypt, decrypt = a.decrypt OR excluded.decrypt"
    );
    write::one(&grant, &arguments[..4])
}

/// Takes back what is named and leaves the rest; a grant of nothing goes altogether. The role may
/// be gone.
///
/// # Errors
/// `unknown_tenant`, `unknown_role` if there was no such grant; `tenant_name`, `read_only`,
/// `registry_write`.
pub fn revoke(change: &GrantChange<'_>) -> Result<()> {
    let arguments = change.arguments();
    let rows = format!("cmk.access a WHERE {OF_GRANT}");
    let (table, lock) = (ACCESS.name, "FOR UPDATE");
    let target = Target { table, rows: &rows, arguments: &arguments, lock };
    // Of a role that is gone, a grant has no effect anyway.
    if change.role.oid != pg_sys::InvalidOid {
        brake::revoke(change.tenant, change.role.oid, (change.encrypt, change.decrypt), &target)?;
    }
    // All or what is left of it: a row that allows nothing isn't representable.
    let nothing_left = "(NOT a.encrypt OR $3) AND (NOT a.decrypt OR $4)";
    let deleted = write::execute(
        &format!("DELETE FROM cmk.access a WHERE {OF_GRANT} AND {nothing_left}"),
        &arguments,
    )?;
    let reduced = write::execute(
        &format!(
            "UPDATE cmk.access a SET encrypt = a.encrypt AND NOT $3, decrypt = a.decrypt AND NOT $4
              WHERE {OF_GRANT}"
        ),
        &arguments,
    )?;
    let still = "(a.encrypt AND $3 OR a.decrypt AND $4)";
    let kept = format!("SELECT FROM cmk.access a WHERE {OF_GRANT} AND {still}");
    if write::execute(&kept, &arguments)? > 0 {
        return Err(Reason::RegistryWrite.into());
    }
    // No such grant: report what is unknown. Last, so that the effect is not delayed.
    if deleted + reduced == 0 {
        change.tenant.map_or(Ok(()), read::require_registered)?;
        change.role.require()?;
    }
    Ok(())
}
