//! What the registry says of a tenant, as plain data. Reading and writing it is the process's job.

use cmk_crypto::commitment::{Commitment, DekId};
use cmk_envelope::column::INDEX_KEY_ID_LEN;
use cmk_error::{Error, Reason, Result};
use cmk_kms::{CustomerKey, Purpose};
use unicode_properties::{GeneralCategory, UnicodeGeneralCategory};

/// A snapshot of one tenant's rows.
#[derive(Clone, Debug)]
pub struct Tenant {
    /// 1 to 255 bytes; see [`check_tenant_name`].
    pub name: Box<str>,
    /// Whether its values may be sealed and opened.
    pub state: TenantState,
    /// Drawn at registration, and anew by activation, suspension, resumption, `cmk.evict` and a
    /// change of options: a cached data key of another epoch is not used.
    pub epoch: i64,
    /// The key that wraps its data keys.
    pub customer_key: CustomerKey,
    /// Highest version that a data key of the tenant ever had.
    pub last_version: i32,
    /// All of them, in no particular order.
    pub data_keys: Vec<DataKey>,
}

/// A data key as the registry holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataKey {
    /// Counts the data keys that the tenant ever had, whatever their purpose.
    pub version: i32,
    /// What it is for.
    pub purpose: Purpose,
    /// What becomes of it.
    pub state: DataKeyState,
    /// What it is recognised by when it is unwrapped.
    pub commitment: Commitment,
    /// `None` once destroyed.
    pub wrapped: Option<Box<[u8]>>,
}

/// Whether a tenant's values may be sealed and opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TenantState {
    /// Registered; no data key was made yet.
    Pending,
    /// In use.
    Active,
    /// Stopped by a database administrator.
    Suspended,
    /// Its data keys were destroyed.
    Shredded,
}

/// The index keys of a tenant that are in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IndexKeys {
    /// Makes the token that searches look for.
    pub current: DekId,
    /// Makes a second token, while it is to become current.
    pub next: Option<DekId>,
    /// Was current before: values may still be found by its tokens.
    pub previous: Option<DekId>,
}

impl IndexKeys {
    /// Beside the current one, by which values may be found: the next, from the moment on that it
    /// is there, so that nobody who learns late that it took over misses a value; else the one
    /// before.
    pub fn other(&self) -> Option<DekId> {
        self.next.or(self.previous)
    }

    /// Those by which values may be found, the current one first.
    pub fn searched(&self) -> impl Iterator<Item = DekId> {
        [Some(self.current), self.other()].into_iter().flatten()
    }

    /// Those that the tokens of a new value are made under, the current one first.
    pub fn written(&self) -> (DekId, Option<DekId>) {
        (self.current, self.next)
    }
}

/// How headers name an index key: by the first bytes of its name.
#[inline]
pub fn index_key_id(id: &DekId) -> [u8; INDEX_KEY_ID_LEN] {
    let mut short = [0; INDEX_KEY_ID_LEN];
    short.copy_from_slice(&id.0[..INDEX_KEY_ID_LEN]);
    short
}

/// What becomes of a data key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DataKeyState {
    /// Seals new values, or makes their tokens; at most one for each purpose of a tenant.
    Current,
    /// An index key that is to become current: values get its token beside the current one's.
    Next,
    /// Opens old values, or finds them.
    Retired,
    /// Its wrapped bytes are gone.
    Destroyed,
}

/// What a database role may do with a tenant's values.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Grant {
    /// Seal new values.
    pub encrypt: Right,
    /// Open values.
    pub decrypt: Right,
}

/// Half of a grant. Of several grants of a role the greatest counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Right {
    /// The role may not.
    #[default]
    Never,
    /// While the session names this tenant as its own.
    Bound,
    /// Whatever the session says.
    Always,
}

impl Right {
    /// What a grant that gives it, or doesn't, makes of it.
    pub const fn of(is_given: bool, is_bound: bool) -> Self {
        match (is_given, is_bound) {
            (false, _) => Self::Never,
            (true, true) => Self::Bound,
            (true, false) => Self::Always,
        }
    }
}

/// A database role, by PostgreSQL's object id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Role(pub u32);

impl TenantState {
    /// Inverse of [`TenantState::name`].
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

    /// Lets active tenants through.
    ///
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
    /// From the registry's word for it.
    pub fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "current" => Self::Current,
            "next" => Self::Next,
            "retired" => Self::Retired,
            "destroyed" => Self::Destroyed,
            _ => return None,
        })
    }
}

impl Tenant {
    /// The data key of an envelope.
    ///
    /// # Errors
    /// `unknown_data_key`: the value was sealed for another tenant; `data_keys_missing` if it may
    /// be one that the registry lost.
    pub fn data_key(&self, id: DekId) -> Result<&DataKey> {
        let found = self
            .data_keys
            .iter()
            .find(|key| key.commitment.dek_id() == id && key.purpose == Purpose::Values);
        found.ok_or_else(|| {
            let complete = self.require_all_data_keys();
            complete.err().unwrap_or_else(|| self.error(Reason::UnknownDataKey))
        })
    }

    /// The data key that seals new values.
    ///
    /// # Errors
    /// `tenant_pending` if no data key was ever made; `data_keys_missing`.
    pub fn current_data_key(&self) -> Result<&DataKey> {
        self.current(Purpose::Values).ok_or_else(|| match self.state {
            TenantState::Pending => self.error(Reason::TenantPending),
            _ => self.error(Reason::DataKeysMissing),
        })
    }

    /// The current data key of a purpose.
    pub fn current(&self, purpose: Purpose) -> Option<&DataKey> {
        let is_current =
            |key: &&DataKey| key.state == DataKeyState::Current && key.purpose == purpose;
        self.data_keys.iter().find(is_current)
    }

    /// A data key of any purpose.
    ///
    /// # Errors
    /// `unknown_data_key`.
    pub fn any_key(&self, id: DekId) -> Result<&DataKey> {
        let found = self.data_keys.iter().find(|key| key.commitment.dek_id() == id);
        found.ok_or_else(|| self.error(Reason::UnknownDataKey))
    }

    /// The index keys that are in use.
    ///
    /// # Errors
    /// `no_index_key` if none was ever made; `data_keys_missing`; `tenant_shredded`.
    pub fn index_keys(&self) -> Result<IndexKeys> {
        let of = |state| {
            let keys = self.data_keys.iter();
            let found = keys.filter(|key| key.purpose == Purpose::Index && key.state == state);
            found.max_by_key(|key| key.version).map(|key| key.commitment.dek_id())
        };
        let Some(current) = of(DataKeyState::Current) else {
            self.require_all_data_keys()?;
            return Err(self.error(match of(DataKeyState::Destroyed) {
                Some(_) => Reason::TenantShredded,
                None => Reason::NoIndexKey,
            }));
        };
        let (next, previous) = (of(DataKeyState::Next), of(DataKeyState::Retired));
        Ok(IndexKeys { current, next, previous })
    }

    /// The index key of that id in headers.
    pub fn index_key(&self, id: [u8; INDEX_KEY_ID_LEN]) -> Option<DekId> {
        let keys = self.data_keys.iter().filter(|key| key.purpose == Purpose::Index);
        let ids = keys.filter(|key| key.wrapped.is_some()).map(|key| key.commitment.dek_id());
        ids.into_iter().find(|of| index_key_id(of) == id)
    }

    /// Every version up to the highest must be there, destroyed ones included, and the tenant that
    /// is past `pending` has at least one.
    ///
    /// # Errors
    /// `data_keys_missing`, for instance after a restore that left `cmk.data_key` out.
    pub fn require_all_data_keys(&self) -> Result<()> {
        let expected = self.last_version.max((self.state != TenantState::Pending).into());
        let known = self.data_keys.iter().filter(|key| key.version <= expected).count();
        if known < expected as usize { Err(self.error(Reason::DataKeysMissing)) } else { Ok(()) }
    }

    /// The version of the next data key.
    ///
    /// # Errors
    /// `data_keys_missing`; `tenant_state_conflict` when the numbers are used up.
    pub fn next_version(&self) -> Result<i32> {
        self.require_all_data_keys()?;
        let newest = self.data_keys.iter().map(|key| key.version).max().unwrap_or(0);
        let next = newest.max(self.last_version).checked_add(1);
        next.ok_or_else(|| self.error(Reason::TenantStateConflict))
    }

    fn error(&self, reason: Reason) -> Error {
        Error::new(reason).for_tenant(&self.name)
    }
}

/// Longest tenant name, in bytes.
pub const TENANT_NAME_MAX: usize = 255;

/// Checks a tenant name. Names are compared byte by byte: no case folding, no Unicode
/// normalisation.
///
/// # Errors
/// `tenant_name` for an empty, too long or reserved name, or one with characters that can't be
/// seen: control characters, and those of Unicode's categories Cf, Zl and Zp, which reorder or hide
/// what a log shows of their neighbours.
pub fn check_tenant_name(name: &str) -> Result<()> {
    let valid = (1..=TENANT_NAME_MAX).contains(&name.len())
        && !name.chars().any(is_invisible)
        && name != "*";
    if valid { Ok(()) } else { Err(Reason::TenantName.into()) }
}

/// A tenant's name out of bytes that may be anything, before anything repeats them.
///
/// # Errors
/// `tenant_name` for what is too long or isn't UTF-8, which no registered name is.
#[inline]
pub fn read_tenant_name(bytes: &[u8]) -> Result<&str> {
    if bytes.len() > TENANT_NAME_MAX {
        return Err(Reason::TenantName.into());
    }
    std::str::from_utf8(bytes).map_err(|_| Reason::TenantName.into())
}

/// What brakes check: a tenant that is registered under whatever name can be suspended.
///
/// # Errors
/// `tenant_name` for a name that is longer than any registered one.
pub fn check_tenant_name_length(name: &str) -> Result<()> {
    if name.len() <= TENANT_NAME_MAX { Ok(()) } else { Err(Reason::TenantName.into()) }
}

/// Whether somebody who reads it sees anything of a character.
pub fn is_visible(c: char) -> bool {
    !c.is_whitespace() && !is_invisible(c)
}

fn is_invisible(c: char) -> bool {
    use GeneralCategory::{Control, Format, LineSeparator, ParagraphSeparator};
    matches!(c.general_category(), Control | Format | LineSeparator | ParagraphSeparator)
}

#[cfg(test)]
mod tests;
