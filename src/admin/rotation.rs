//! Rotation by the monitor: when it is due, and what it does. What a DBA asks for is in
//! [`tenant`](super::tenant).

use super::audit::{Act, record};
use super::data_key;
use super::tenant::lock;
use crate::pg::monitor::{Rotate, Uses};
use crate::pg::registry::write;
use crate::pg::settings::values;
use cmk_error::{Error, Reason, Result};
use cmk_keyring::tenant::{Tenant, TenantState};
use cmk_keyring::unwrap::WrappedDataKey;
use cmk_kms::Purpose;
use pgrx::JsonB;
use pgrx::datum::Interval;
use pgrx::spi::{self, Spi};

/// What the monitor, which is below, calls.
pub const BY_MONITOR: Rotate = Rotate { count, due, make, put };

/// Says when the monitor rotates a tenant's data key: at which age, after how many sealed values.
/// None: as the settings say. 0: never.
///
/// # Errors
/// `rotation_limit`; as [`lock`].
pub fn alter(tenant: &str, after: Option<Interval>, after_values: Option<i64>) -> Result<()> {
    const LONGEST: i128 = 10 * 366 * 86_400_000_000;
    let is_valid = after.is_none_or(|it| (0..=LONGEST).contains(&it.as_micros()));
    if !is_valid || after_values.is_some_and(|values| values < 0) {
        return Err(Error::new(Reason::RotationLimit).for_tenant(tenant));
    }
    lock(tenant, None)?;
    const LIMITS: &str = "
        SELECT pg_catalog.jsonb_build_object(
                   'rotate_after', t.rotate_after, 'rotate_after_values', t.rotate_after_values)
          FROM cmk.tenant t WHERE t.tenant OPERATOR(pg_catalog.=) $1";
    const UPDATE: &str = "
        UPDATE cmk.tenant
           SET rotate_after = $2, rotate_after_values = $3, changed_at = pg_catalog.now()
         WHERE tenant OPERATOR(pg_catalog.=) $1";
    let limits = || write::returning::<JsonB>(LIMITS, &[tenant.into()]);
    let before = limits()?.map(|JsonB(before)| before);
    write::one(UPDATE, &[tenant.into(), after.into(), after_values.into()])?;
    let after = limits()?.map(|JsonB(after)| after);
    let (act, tenant) = ("alter_tenant_rotation", Some(tenant));
    record(&Act { act, tenant, data_key: None, before, after });
    Ok(())
}

/// Adds to what data keys have sealed.
fn count(uses: &Uses) -> Result<()> {
    const COUNT: &str = "
        WITH more AS (
            SELECT m.tenant, m.version, m.sealed,
                   (SELECT u.id FROM cmk.data_key_use u
                     WHERE u.tenant OPERATOR(pg_catalog.=) m.tenant
                       AND u.version OPERATOR(pg_catalog.=) m.version
                     ORDER BY u.id LIMIT 1) AS id
              FROM ROWS FROM (pg_catalog.unnest($1), pg_catalog.unnest($2), pg_catalog.unnest($3))
                   AS m (tenant, version, sealed)),
        counted AS (
            UPDATE cmk.data_key_use u
               SET sealed = u.sealed OPERATOR(pg_catalog.+) more.sealed,
                   counted_at = pg_catalog.now()
              FROM more
             WHERE u.id OPERATOR(pg_catalog.=) more.id)
        INSERT INTO cmk.data_key_use (tenant, version, sealed)
        SELECT tenant, version, sealed FROM more WHERE id IS NULL";
    let Uses { tenants, versions, sealed } = uses.clone();
    write::execute(COUNT, &[tenants.into(), versions.into(), sealed.into()]).map(drop)
}

/// The tenants whose data key is to be rotated, the most overdue first.
///
/// None of them where the registry comes from a publisher: its versions are the publisher's to
/// give. None that is being moved to another key.
fn due() -> Result<Vec<String>> {
    const DUE: &str = "
        SELECT t.tenant
          FROM cmk.tenant t
          JOIN cmk.data_key k
            ON k.tenant OPERATOR(pg_catalog.=) t.tenant
           AND k.state OPERATOR(pg_catalog.=) 'current'
           AND k.purpose OPERATOR(pg_catalog.=) 'values'
         CROSS JOIN LATERAL (SELECT
               COALESCE(t.rotate_after, pg_catalog.make_interval(secs => $1)) AS age,
               COALESCE(t.rotate_after_values, $2) AS most) AS allowed
         CROSS JOIN LATERAL (SELECT
               allowed.age OPERATOR(pg_catalog.>) '0'::pg_catalog.interval
               AND k.created_at OPERATOR(pg_catalog.<=)
                   (pg_catalog.now() OPERATOR(pg_catalog.-) allowed.age) AS by_age,
               allowed.most OPERATOR(pg_catalog.>) 0
               AND (SELECT pg_catalog.sum(u.sealed) FROM cmk.data_key_use u
                     WHERE u.tenant OPERATOR(pg_catalog.=) k.tenant
                       AND u.version OPERATOR(pg_catalog.=) k.version)
                   OPERATOR(pg_catalog.>=) allowed.most AS by_values) AS is_due
         WHERE t.state OPERATOR(pg_catalog.=) 'active'
           AND t.next_key_uri IS NULL
           AND (is_due.by_age OR is_due.by_values)
           AND NOT EXISTS (SELECT FROM pg_catalog.pg_subscription_rel r
                             JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) r.srrelid
                             JOIN pg_catalog.pg_namespace n
                               ON n.oid OPERATOR(pg_catalog.=) c.relnamespace
                            WHERE n.nspname OPERATOR(pg_catalog.=) 'cmk'
                              AND c.relname OPERATOR(pg_catalog.=) ANY ('{tenant, data_key}'))
         ORDER BY k.created_at";
    let arguments = [values::rotate_after().into(), values::rotate_after_values().into()];
    let names = |client: &spi::SpiClient<'_>| {
        let rows = client.select(DUE, None, &arguments)?;
        rows.map(|row| row.get::<String>(1)).collect::<spi::Result<Vec<_>>>()
    };
    let names = Spi::connect(names).map_err(|_| Error::new(Reason::RegistryUnusable))?;
    Ok(names.into_iter().flatten().collect())
}

/// Asks KMS, with nothing locked.
fn make(tenant: &Tenant) -> Result<WrappedDataKey> {
    data_key::make(tenant, Purpose::Values)
}

/// Stores it, unless the tenant is another by now, or somebody holds its row.
fn put(expected: &Tenant, made: &WrappedDataKey) -> Result<i32> {
    let locked = lock(&expected.name, Some(TenantState::Active))?;
    let current = |tenant: &Tenant| tenant.current(Purpose::Values).map(|key| key.version);
    if locked.customer_key != expected.customer_key || current(&locked) != current(expected) {
        return Err(Error::new(Reason::TenantBusy).for_tenant(&expected.name));
    }
    let version = locked.next_version()?;
    data_key::put(&locked, version, Purpose::Values, made)?;
    data_key::record_change("rotate_tenant", &locked, Purpose::Values, version);
    Ok(version)
}
