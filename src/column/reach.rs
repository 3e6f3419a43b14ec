//! Whose values a search looks at: those of the tenant that the query names beside it, else of
//! `cmk_encrypt.tenant`, else of every tenant that the role may decrypt for.
//!
//! Never what rows say: so a search tells nothing of rows that row security hides.

use super::{tags, token};
use crate::pg::identity::current_role;
use crate::pg::process::{ThisProcess, keyring, tenant_mismatch};
use crate::pg::registry::{invalidation, read};
use crate::pg::report;
use crate::pg::settings::values::column_tenant;
use cmk_error::{Error, KeyState, Reason, Result};
use cmk_keyring::keyring::TokenFor;
use cmk_keyring::tenant::{Right, Role, read_tenant_name};
use std::cell::RefCell;
use std::rc::Rc;

/// Tenants that a search by grants alone makes tokens for, each of which may ask KMS.
pub const TENANTS_MAX: usize = 64;

pub enum Reach {
    /// Of one tenant, and what goes wrong for it is an error.
    Tenant(String),
    /// Of all tenants that the role holds a grant for, but those whose key is away.
    Granted,
}

/// Tenants whose values a search left out.
#[derive(Default)]
pub struct Skipped {
    told: bool,
}

impl Reach {
    /// `named`: the tenant that the query names.
    ///
    /// # Errors
    /// `tenant_name`, `unknown_tenant`, and what that tenant's index key can't be used for;
    /// `no_grant` for a role that holds none.
    pub fn of(process: &ThisProcess, named: Option<&[u8]>) -> Result<Self> {
        let name = match named {
            Some(name) => Some(read_tenant_name(name)?.to_owned()),
            None => setting()?,
        };
        let Some(name) = name else {
            return granted().map(|_| Self::Granted);
        };
        // Whatever rows there are: an index scan fails for the same.
        keyring().with_keys_in_use(process, || {
            match token::index_keys(process, &name, TokenFor::Searching) {
                Err(error) if error.reason == Reason::NoIndexKey => Ok(()),
                keys => {
                    let (key, none) = ((keys?.current, TokenFor::Searching), tags::of_column(b""));
                    keyring().token(process, &name, key, none, b"").map(drop)
                }
            }
        })?;
        Ok(Self::Tenant(name))
    }

    /// What to do about a tenant for which a call failed: it is left out, or the search fails. Also
    /// if the role holds the grant, but not the one that the query was started as.
    ///
    /// # Errors
    /// The same.
    pub fn leave_out(&self, tenant: &str, error: Error, skipped: &mut Skipped) -> Result<()> {
        match self {
            Self::Granted
                if error.reason == Reason::NoGrant
                    && read::grant(current_role(), tenant)?.decrypt == Right::Never =>
            {
                Ok(())
            }
            Self::Granted if is_away(&error) => {
                if !skipped.told {
                    skipped.told = true;
                    report::warn_skipped(&error);
                }
                Ok(())
            }
            _ => Err(error),
        }
    }
}

/// The tenant of the session.
///
/// # Errors
/// `tenant_name`.
pub fn setting() -> Result<Option<String>> {
    let name = column_tenant();
    name.map(|name| read_tenant_name(name.as_bytes()).map(str::to_owned)).transpose()
}

/// True of a tenant that is dark for a reason of its own, or that a grant names and the registry
/// doesn't have. Not of a KMS that fails: then nobody could tell which values are missing.
fn is_away(error: &Error) -> bool {
    error.reason.key_state() == Some(KeyState::Revoked)
        || matches!(
            error.reason,
            Reason::TenantPending
                | Reason::TenantSuspended
                | Reason::TenantShredded
                | Reason::UnknownTenant
        )
}

/// `None`: of a role whose grants are bound to the session's tenant.
type Granted = (Role, u64, Option<Rc<[String]>>);

thread_local! {
    static GRANTED: RefCell<Option<Granted>> = const { RefCell::new(None) };
}

/// The tenants that the current role may decrypt for while the session names none, as far as the
/// registry says: one more than [`TENANTS_MAX`] at most.
///
/// # Errors
/// `not_installed`; `no_grant` if there are none; `tenant_mismatch` if there would be more by
/// grants that are bound to the session's tenant, whose values would be missing without a word.
pub fn granted() -> Result<Rc<[String]>> {
    let (role, generation) = (current_role(), invalidation::registry_generation());
    let of_grants = |tenants: &Option<Rc<[String]>>| match tenants {
        Some(tenants) if tenants.is_empty() => {
            Err(Error::new(Reason::NoGrant).with_info("needs=decrypt"))
        }
        Some(tenants) => Ok(tenants.clone()),
        None => Err(tenant_mismatch()),
    };
    let known = GRANTED.with_borrow(|granted| match granted {
        Some((of, at, tenants)) if *of == role && *at == generation => Some(of_grants(tenants)),
        _ => None,
    });
    if let Some(tenants) = known {
        return tenants;
    }
    // A change since the look at the generation makes the answer stale, not wrong.
    let tenants = read::tenants_to_decrypt(role, TENANTS_MAX + 1)?.map(Rc::from);
    let found = of_grants(&tenants);
    GRANTED.set(Some((role, generation, tenants)));
    found
}
