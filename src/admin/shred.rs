//! The end of a tenant: its data keys destroyed for good, and what is left of it removed.

use super::audit::{Act, record};
use super::tenant::{lock_row, new_epoch, row_of_tenant, state_conflict};
use crate::pg::registry::{read, write};
use crate::pg::settings::values;
use crate::pg::{brake, identity};
use cmk_error::{Error, Reason, Result};
use cmk_keyring::tenant::{Tenant, TenantState};
use pgrx::JsonB;
use serde_json::json;

/// Destroys every wrapped data key and index key of a suspended tenant. Returns the certificate,
/// which the tenant's row keeps.
///
/// A tenant that was shredded, and got wrapped data keys back from an older dump, is shredded
/// again, without delay.
///
/// # Errors
/// `confirmation`, `tenant_state_conflict`, `shred_too_soon`, `unknown_tenant`, `tenant_busy`,
/// `read_only`, `registry_write`.
pub fn shred(tenant: &str, confirm: &str, immediately: bool) -> Result<JsonB> {
    if confirm != tenant {
        return Err(Error::new(Reason::Confirmation).for_tenant(tenant));
    }
    let locked = lock_row(tenant)?;
    let came_back = locked.state == TenantState::Shredded && read::has_data_keys(Some(tenant))?;
    if locked.state != TenantState::Suspended && !came_back {
        return Err(state_conflict(&locked));
    }
    if !(immediately || came_back) {
        require_delay(&locked)?;
    }
    // The copies in shared memory are zeroed before the commit.
    brake::evict(Some(tenant), &row_of_tenant(&[tenant.into()]))?;
    let arguments = [
        tenant.into(),
        new_epoch()?.into(),
        immediately.into(),
        values::shred_delay().into(),
        (values::ttl() as f64 / 1e9).into(),
        identity::outer_role().into(),
        REMAINS.map(str::to_owned).to_vec().into(),
    ];
    let certificate = write::returning::<JsonB>(DESTROY, &arguments)?;
    // A trigger or a rule of somebody else may have swallowed rows.
    let Some(JsonB(certificate)) = certificate else {
        return Err(Reason::RegistryWrite.into());
    };
    if read::has_data_keys(Some(tenant))? {
        return Err(Reason::RegistryWrite.into());
    }
    let before = Some(json!({ "state": locked.state.name() }));
    let after = Some(json!({ "state": "shredded", "certificate": &certificate }));
    record(&Act { act: "shred_tenant", tenant: Some(tenant), data_key: None, before, after });
    Ok(JsonB(certificate))
}

/// What is wrapped goes, whatever it is: the tenant's data keys have no other copies in the
/// registry.
///
/// Who has a dump or a base backup of before has the wrapped data keys, and needs the tenant's key
/// to unwrap them. What a dump takes, the rows, is free of them from the commit on. What a base
/// backup takes, the files, holds old versions of the rows until the table is written anew.
const DESTROY: &str = "
    WITH destroyed AS (
        UPDATE cmk.data_key
           SET state = 'destroyed', wrapped = NULL, next_wrapped = NULL, next_wrapped_by = NULL
         WHERE tenant OPERATOR(pg_catalog.=) $1 AND wrapped IS NOT NULL
        RETURNING version, purpose, commitment, wrapped_by),
    listed AS (
        SELECT COALESCE(pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
                   'version', version, 'purpose', purpose, 'wrapped_by', wrapped_by,
                   'commitment', pg_catalog.encode(commitment, 'hex')) ORDER BY version), '[]')
               AS data_keys
          FROM destroyed),
    missing AS (
        SELECT COALESCE(pg_catalog.jsonb_agg(v.version ORDER BY v.version), '[]') AS versions
          FROM cmk.tenant t
         CROSS JOIN LATERAL pg_catalog.generate_series(1, t.last_version) v (version)
         WHERE t.tenant OPERATOR(pg_catalog.=) $1
           AND NOT EXISTS (SELECT FROM cmk.data_key k
                            WHERE k.tenant OPERATOR(pg_catalog.=) $1
                              AND k.version OPERATOR(pg_catalog.=) v.version)),
    moment AS (SELECT pg_catalog.clock_timestamp() AS at)
    UPDATE cmk.tenant t
       SET state = 'shredded', epoch = $2, changed_at = pg_catalog.now(),
           next_key_uri = NULL, next_options = NULL,
           certificate = pg_catalog.jsonb_build_object(
               'tenant', t.tenant,
               'database', pg_catalog.current_database(),
               'key_uri', t.key_uri,
               'shredded_at', moment.at,
               'suspended_since', COALESCE(t.suspended_at, t.changed_at),
               'immediately', $3,
               'shred_delay_seconds', $4,
               'session_role', SESSION_USER::pg_catalog.text,
               'current_role', pg_catalog.pg_get_userbyid($6),
               'data_keys', listed.data_keys,
               'data_keys_missing', missing.versions,
               'memory_free_from',
               moment.at OPERATOR(pg_catalog.+) pg_catalog.make_interval(secs => $5),
               'dumps_free_from', moment.at,
               'base_backups_free_after', 'VACUUM FULL cmk.data_key',
               'remains', pg_catalog.to_jsonb($7))
               OPERATOR(pg_catalog.||) CASE
                   WHEN t.certificate IS NULL THEN '{}'
                   ELSE pg_catalog.jsonb_build_object('earlier', t.certificate) END
      FROM listed, missing, moment
     WHERE t.tenant OPERATOR(pg_catalog.=) $1
    RETURNING t.certificate";

/// What the certificate says of what it did not reach.
const REMAINS: [&str; 5] = [
    "Dumps, base backups and WAL archives from before hold the wrapped data keys. They open only \
     with the customer managed key: while its owner keeps it, and lets somebody use it.",
    "Files of cmk.data_key hold old row versions until VACUUM FULL cmk.data_key.",
    "Standbys and subscribers hold the wrapped data keys until they have replayed this, and copies \
     of the database for good.",
    "The sealed values are where they were. Nobody can open them.",
    "The grants of the tenant, this certificate, and events that name the tenant.",
];

/// # Errors
/// `shred_too_soon`, which says from when on.
fn require_delay(tenant: &Tenant) -> Result<()> {
    // Of infinity, to_char() makes null, which would be no wait.
    const WAIT: &str = "
        SELECT COALESCE(
               pg_catalog.to_char(d.from_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"'),
               d.from_at::pg_catalog.text)
          FROM cmk.tenant t
         CROSS JOIN LATERAL (SELECT COALESCE(t.suspended_at, t.changed_at)
               OPERATOR(pg_catalog.+) pg_catalog.make_interval(secs => $2)) AS d (from_at)
         WHERE t.tenant OPERATOR(pg_catalog.=) $1
           AND d.from_at OPERATOR(pg_catalog.>) pg_catalog.clock_timestamp()";
    let arguments = [(&*tenant.name).into(), values::shred_delay().into()];
    match write::returning::<String>(WAIT, &arguments)? {
        None => Ok(()),
        Some(from) => {
            let error = Error::new(Reason::ShredTooSoon).for_tenant(&tenant.name);
            Err(error.with_info(format!("from={from}")))
        }
    }
}

/// Removes what the registry has of a tenant that was never active, or that was shredded: its row,
/// its destroyed data keys and its grants. Its name can be registered again.
///
/// # Errors
/// `tenant_state_conflict`, `unknown_tenant`, `tenant_busy`, `read_only`, `registry_write`;
/// `keys_would_be_lost` if there are data keys all the same.
pub fn remove(tenant: &str) -> Result<()> {
    const LOCK: &str = "LOCK TABLE cmk.access IN SHARE ROW EXCLUSIVE MODE";
    const GRANTS: &str = "DELETE FROM cmk.access WHERE tenant OPERATOR(pg_catalog.=) $1";
    const DATA_KEYS: &str = "DELETE FROM cmk.data_key WHERE tenant OPERATOR(pg_catalog.=) $1";
    const USES: &str = "DELETE FROM cmk.data_key_use WHERE tenant OPERATOR(pg_catalog.=) $1";
    const TENANT: &str = "DELETE FROM cmk.tenant WHERE tenant OPERATOR(pg_catalog.=) $1";
    let locked = lock_row(tenant)?;
    if !matches!(locked.state, TenantState::Pending | TenantState::Shredded) {
        return Err(state_conflict(&locked));
    }
    // Who is granting something is waited for, and who grants something later finds no tenant. Else
    // the next tenant of this name would have the grant.
    write::execute(LOCK, &[])?;
    write::execute(GRANTS, &[tenant.into()])?;
    write::execute(DATA_KEYS, &[tenant.into()])?;
    write::execute(USES, &[tenant.into()])?;
    write::one(TENANT, &[tenant.into()])?;
    // Not seen by the statements above, in a transaction with an older snapshot.
    if read::has_grants(tenant)? {
        return Err(Error::new(Reason::TenantBusy).for_tenant(tenant));
    }
    read::require_no_data_keys(tenant).map_err(|_| Error::new(Reason::RegistryWrite))?;
    let before = Some(json!({ "state": locked.state.name() }));
    record(&Act {
        act: "remove_tenant",
        tenant: Some(tenant),
        data_key: None,
        before,
        after: None,
    });
    Ok(())
}
