//! Which database roles may encrypt and decrypt values of which tenants.

use super::audit::{Act, record};
use crate::pg::brake::{self, Target};
use crate::pg::grantee::NamedRole;
use crate::pg::registry::tables::ACCESS;
use crate::pg::registry::{read, write};
use cmk_error::{Reason, Result};
use cmk_keyring::tenant::check_tenant_name_length;
use pgrx::datum::DatumWithOid;
use pgrx::pg_sys;
use pgrx::spi::Spi;
use serde_json::json;

/// The tenant argument that stands for every tenant, those to come included. NULL in the table.
const EVERY_TENANT: &str = "*";

/// What to allow or take back, checked.
pub struct GrantChange<'a> {
    /// `None`: every tenant.
    pub tenant: Option<&'a str>,
    pub role: NamedRole,
    pub encrypt: bool,
    pub decrypt: bool,
    /// To the tenant that the session names. `None`: as the grant is; a new one isn't.
    pub bound: Option<bool>,
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
            return Ok(Self { tenant: None, role, encrypt, decrypt, bound: None });
        }
        check_tenant_name_length(tenant)?;
        Ok(Self { tenant: Some(tenant), role, encrypt, decrypt, bound: None })
    }

    /// Also says whether the grant is bound.
    #[must_use]
    pub fn bound(self, bound: Option<bool>) -> Self {
        Self { bound, ..self }
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
    let (_, before) = lock_rights(change)?;
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
        "INSERT INTO cmk.access AS a (tenant, role, encrypt, decrypt, bound)
         VALUES ($1, $2::pg_catalog.text::cmk.grantee, $3, $4, COALESCE($5, false))
         ON CONFLICT {conflict} DO UPDATE
         SET encrypt = a.encrypt OR excluded.encrypt, decrypt = a.decrypt OR excluded.decrypt,
             bound = COALESCE($5, a.bound)"
    );
    let [tenant_name, role_name, encrypt, decrypt, _] = change.arguments();
    write::one(&grant, &[tenant_name, role_name, encrypt, decrypt, change.bound.into()])?;
    // Somebody may have removed the tenant meanwhile, and kept this waiting.
    tenant.map_or(Ok(()), read::require_registered)?;
    record_change("grant_access", change, before, rights(change)?);
    Ok(())
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
    let target = Target { table, rows: &rows, arguments: &arguments, lock, is_whole: false };
    // Of a role that is gone, a grant has no effect anyway.
    if change.role.oid != pg_sys::InvalidOid {
        brake::revoke(change.tenant, change.role.oid, (change.encrypt, change.decrypt), &target)?;
    }
    let (locked, before) = lock_rights(change)?;
    // All or what is left of it: a row that allows nothing isn't representable. One statement: of a
    // grant that comes meanwhile it takes back all that is named, or nothing.
    let revoke = format!(
        "WITH gone AS (
             DELETE FROM cmk.access a
              WHERE {OF_GRANT} AND (NOT a.encrypt OR $3) AND (NOT a.decrypt OR $4) RETURNING 1),
         reduced AS (
             UPDATE cmk.access a SET encrypt = a.encrypt AND NOT $3, decrypt = a.decrypt AND NOT $4
              WHERE {OF_GRANT} AND NOT ((NOT a.encrypt OR $3) AND (NOT a.decrypt OR $4))
             RETURNING 1)
         SELECT FROM gone UNION ALL SELECT FROM reduced"
    );
    let changed = write::execute(&revoke, &arguments)?;
    // A trigger or a rule of somebody else may have swallowed rows.
    if changed < locked {
        return Err(Reason::RegistryWrite.into());
    }
    // No such grant: report what is unknown. Last, so that the effect is not delayed.
    if changed == 0 {
        change.tenant.map_or(Ok(()), read::require_registered)?;
        change.role.require()?;
    }
    let after = Rights {
        encrypt: before.encrypt && !change.encrypt,
        decrypt: before.decrypt && !change.decrypt,
        bound: before.bound,
    };
    record_change("revoke_access", change, before, after);
    Ok(())
}

/// Locks the rows that a change is about until this transaction ends. Returns how many those are,
/// and what they allow.
///
/// Without the lock, a statement here would decide by what somebody else is changing: of two that
/// each take back a half of a grant, both would leave the other half, of which nothing is left.
fn lock_rights(change: &GrantChange<'_>) -> Result<(usize, Rights)> {
    let lock = format!("SELECT FROM cmk.access a WHERE {OF_GRANT} ORDER BY a.id FOR UPDATE");
    let locked = write::execute(&lock, &change.arguments())?;
    Ok((locked, rights(change)?))
}

/// What a grant allows.
#[derive(Clone, Copy)]
struct Rights {
    encrypt: bool,
    decrypt: bool,
    bound: bool,
}

/// What the rows that a change is about allow.
fn rights(change: &GrantChange<'_>) -> Result<Rights> {
    let query = format!(
        "SELECT pg_catalog.bool_or(a.encrypt), pg_catalog.bool_or(a.decrypt),
                pg_catalog.bool_and(a.bound)
           FROM cmk.access a WHERE {OF_GRANT}"
    );
    let found = Spi::get_three_with_args::<bool, bool, bool>(&query, &change.arguments());
    let (encrypt, decrypt, bound) = found.map_err(|_| Reason::RegistryUnusable)?;
    let [encrypt, decrypt, bound] = [encrypt, decrypt, bound].map(|is| is == Some(true));
    Ok(Rights { encrypt, decrypt, bound })
}

fn record_change(act: &'static str, change: &GrantChange<'_>, before: Rights, after: Rights) {
    let role = &change.role.name;
    let json = |Rights { encrypt, decrypt, bound }: Rights| {
        Some(json!({ "role": role, "encrypt": encrypt, "decrypt": decrypt, "bound": bound }))
    };
    let (before, after) = (json(before), json(after));
    record(&Act { act, tenant: change.tenant, data_key: None, before, after });
}
