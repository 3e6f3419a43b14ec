//! What a DBA hands to the owner of a tenant's key, and what our own side has to allow. Nothing
//! here changes the registry or takes a data key, so it works on a standby too. The only thing that
//! may be asked of KMS's side is who we are, where no setting says it.

use crate::column::token_scan;
use crate::pg::providers::InterruptibleKms;
use crate::pg::registry::read;
use crate::pg::settings::values;
use cmk_error::{Error, Reason, Result};
use cmk_keyring::tenant::{DataKeyState, Tenant, TenantState};
use cmk_kms::onboarding::{KeyUse, Onboarding, ServicePrincipal};
use cmk_kms::{CustomerKey, Purpose, policies};
use pgrx::spi::Spi;
use serde_json::Value;

/// What the owner of the tenant's key has to allow us.
///
/// # Errors
/// `tenant_name`, `unknown_tenant`, `tenant_shredded`, `registry_copied`, `no_key_policy`,
/// `service_principal`; if STS is asked for it, what that fails with.
pub fn key_policy(tenant: &str) -> Result<Value> {
    let found = Onboarded::read(tenant)?;
    let write = || {
        let (provider, principal) = found.provider()?;
        provider.key_policy(&found.key_use(), &principal)
    };
    write().map_err(|error| error.for_tenant(tenant))
}

/// A document for the owner of the tenant's key.
///
/// # Errors
/// As [`key_policy`]; `onboarding_format`.
pub fn document(tenant: &str, format: &str) -> Result<String> {
    let found = Onboarded::read(tenant)?;
    let write = || {
        let (provider, principal) = found.provider()?;
        provider.document(&found.key_use(), &principal, &values::bounds(), format)
    };
    write().map_err(|error| error.for_tenant(tenant))
}

/// What we have to be allowed on our side for this tenant, or for all that can have data keys.
///
/// # Errors
/// `tenant_name`, `unknown_tenant`, `tenant_shredded`, `registry_copied`, `no_key_policy`; for all
/// tenants, what a damaged row is refused with.
pub fn service_policy(tenant: Option<&str>) -> Result<Value> {
    match tenant {
        Some(tenant) => {
            let found = Onboarded::read(tenant)?;
            let policy = policies::of_key(&found.tenant.customer_key)
                .and_then(|provider| provider.service_policy(&[found.key_use()]));
            policy.map_err(|error| error.for_tenant(tenant))
        }
        None => {
            let found: Vec<_> =
                tenants()?.iter().map(|name| Onboarded::read(name)).collect::<Result<_>>()?;
            policies::of_service(found.iter().map(Onboarded::key_use).collect())
        }
    }
}

/// A tenant, and what its data keys are and may become.
struct Onboarded {
    tenant: Tenant,
    next: Option<CustomerKey>,
    purposes: Vec<Purpose>,
}

impl Onboarded {
    fn read(name: &str) -> Result<Self> {
        let tenant = read::require_tenant(name)?;
        if tenant.state == TenantState::Shredded {
            return Err(Error::new(Reason::TenantShredded).for_tenant(name));
        }
        let next = next_key(name).map_err(|error| error.for_tenant(name))?;
        let mut purposes = vec![Purpose::Values];
        if needs_index_key(&tenant)? {
            purposes.push(Purpose::Index);
        }
        Ok(Self { tenant, next, purposes })
    }

    fn key_use(&self) -> KeyUse<'_> {
        let Self { tenant, next, purposes } = self;
        KeyUse { tenant: &tenant.name, key: &tenant.customer_key, next: next.as_ref(), purposes }
    }

    /// Whom to ask, and as whom we come.
    fn provider(&self) -> Result<(&'static dyn Onboarding, ServicePrincipal)> {
        let key = &self.tenant.customer_key;
        let provider = policies::of_key(key)?;
        Ok((provider, InterruptibleKms { limit: None }.service_principal(key)?))
    }
}

/// Whether the tenant has an index key or gets one with its activation. Least privilege: whoever
/// has nothing to search for need not allow it.
fn needs_index_key(tenant: &Tenant) -> Result<bool> {
    let is_index_key =
        |purpose, state| purpose == Purpose::Index && state != DataKeyState::Destroyed;
    let has = tenant.data_keys.iter().any(|key| is_index_key(key.purpose, key.state));
    Ok(has || token_scan::has_searchable_column()?)
}

/// The key that the tenant's data keys are being moved to.
fn next_key(tenant: &str) -> Result<Option<CustomerKey>> {
    const NEXT: &str = "
        SELECT t.next_key_uri, t.next_options::pg_catalog.text
          FROM cmk.tenant t WHERE t.tenant OPERATOR(pg_catalog.=) $1";
    let found = Spi::connect(|client| {
        let mut rows = client.select(NEXT, Some(1), &[tenant.into()])?;
        let Some(row) = rows.next() else { return Ok(None) };
        Ok(row.get::<String>(1)?.zip(row.get::<String>(2)?))
    });
    let found = found.map_err(|_: pgrx::spi::Error| Error::new(Reason::RegistryUnusable))?;
    found.map(|(uri, options)| CustomerKey::parse(&uri, &options, 0)).transpose()
}

/// The names of all tenants that can have data keys.
fn tenants() -> Result<Vec<String>> {
    const TENANTS: &str = "
        SELECT t.tenant FROM cmk.tenant t
         WHERE t.state OPERATOR(pg_catalog.<>) 'shredded' ORDER BY t.tenant";
    read::require_at_home()?;
    let names: pgrx::spi::SpiResult<_> = Spi::connect(|client| {
        let rows = client.select(TENANTS, None, &[])?;
        rows.map(|row| row.get::<String>(1).map(Option::unwrap_or_default)).collect()
    });
    names.map_err(|_| Reason::RegistryUnusable.into())
}
