//! What the registry says of a tenant, as plain data. Reading and writing it is the host's job.

use crate::crypto::commitment::{Commitment, DekId};
use crate::error::{Error, Reason, Result};
use crate::kms::Custody;

/// A snapshot of one tenant's rows.
#[derive(Clone, Debug)]
pub struct Tenant {
    pub name: Box<str>,
    pub state: TenantState,
    /// Drawn anew by `cmk.evict`: a cached data key of another epoch is not used.
    pub epoch: i64,
    pub custody: Custody,
    pub data_keys: Vec<DataKey>,
}

/// A data key as the registry holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataKey {
    pub version: i32,
    pub state: DataKeyState,
    pub commitment: Commitment,
    /// `None` once destroyed.
    pub wrapped: Option<Box<[u8]>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TenantState {
    Pending,
    Active,
    Suspended,
    Shredded,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DataKeyState {
    /// Seals new values; at most one a tenant.
    Current,
    /// Opens old values.
    Retired,
    /// Shredded.
    Destroyed,
}

/// What a database role may do with a tenant's values.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Permissions {
    pub encrypt: bool,
    pub decrypt: bool,
}

/// A database role, by PostgreSQL's object id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Role(pub u32);

impl TenantState {
    pub fn from_name(name: &str) -> Option<Self> {
        let all = [Self::Pending, Self::Active, Self::Suspended, Self::Shredded];
        all.into_iter().find(|state| state.name() == name)
    }

    /// The names stand in CHECK constraints of the registry.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Active => "active",
            Self::Suspended => "suspended",
            Self::Shredded => "shredded",
        }
    }

    /// # Errors
    /// Unless the tenant is active, the reason for its state.
    #[inline]
    pub fn require_active(self) -> Result<(), Reason> {
        match self {
            Self::Active => Ok(()),
            Self::Pending => Err(Reason::TenantPending),
            Self::Suspended => Err(Reason::TenantSuspended),
            Self::Shredded => Err(Reason::TenantShredded),
        }
    }
}

impl DataKeyState {
    pub fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "current" => Self::Current,
            "retired" => Self::Retired,
            "destroyed" => Self::Destroyed,
            _ => return None,
        })
    }
}

impl Tenant {
    /// # Errors
    /// `unknown_data_key`: the value was sealed for another tenant, or the registry lost a row.
    pub fn data_key(&self, id: DekId) -> Result<&DataKey> {
        let found = self.data_keys.iter().find(|key| key.commitment.dek_id() == id);
        found.ok_or_else(|| Error::new(Reason::UnknownDataKey).for_tenant(&self.name))
    }

    /// # Errors
    /// `tenant_pending` if no data key was ever made.
    pub fn current_data_key(&self) -> Result<&DataKey> {
        let found = self.data_keys.iter().find(|key| key.state == DataKeyState::Current);
        found.ok_or_else(|| Error::new(Reason::TenantPending).for_tenant(&self.name))
    }
}

/// Longest tenant name, in bytes.
pub const TENANT_NAME_MAX: usize = 255;

/// Checks a tenant name. Names are compared byte by byte: no case folding, no Unicode normalisation.
///
/// # Errors
/// `tenant_name` for an empty, too long or reserved name, or control characters.
pub fn check_tenant_name(name: &str) -> Result<()> {
    let valid = (1..=TENANT_NAME_MAX).contains(&name.len())
        && !name.chars().any(char::is_control)
        && name != "*";
    if valid { Ok(()) } else { Err(Reason::TenantName.into()) }
}
