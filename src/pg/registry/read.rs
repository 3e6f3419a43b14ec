//! Reads tenants and grants out of the registry's tables.

use super::invalidation;
use super::scan::{self, Key, Row, any};
use super::tables::{
    ACCESS, DATA_KEY, DATA_KEY_BY_ID, HOME, OTHER_INDEX_KEYS, TENANT, access,
    data_key as data_key_column, home, tenant as column,
};
use crate::pg::identity::database;
use crate::pg::shared_memory::access as memory;
use cmk_crypto::commitment::{Commitment, DekId};
use cmk_error::{Error, Reason, Result};
use cmk_keyring::shared::brake;
use cmk_keyring::shared::identity::TenantId;
use cmk_keyring::tenant::{
    DataKey, DataKeyState, Grant, Right, Role, Tenant, TenantState, check_tenant_name,
};
use cmk_kms::{CustomerKey, Purpose};
use pgrx::pg_sys;
use std::cell::Cell;
use std::collections::BTreeSet;

/// The tenant as the registry has it.
///
/// # Errors
/// `not_installed`; `registry_copied`; `key_uri` and the like if a row was altered into nonsense.
pub fn tenant(name: &str) -> Result<Option<Tenant>> {
    // Before the read, so that no change of what is read goes unnoticed.
    require_at_home().map_err(|error| error.for_tenant(name))?;
    let mut found = None;
    scan::scan(&TENANT, &Key::Text(name), |row| {
        found = Some(tenant_of(name, row)?);
        Ok(())
    })?;
    if let Some(tenant) = &mut found {
        scan::scan(&DATA_KEY, &Key::Text(name), |row| {
            tenant.data_keys.push(data_key_of(row)?);
            Ok(())
        })?;
    }
    Ok(found)
}

/// As [`tenant`], for a tenant that has to be there.
///
/// # Errors
/// `unknown_tenant`; `tenant_name` for a name that can't be registered, so that the two are told
/// apart.
pub fn require_tenant(name: &str) -> Result<Tenant> {
    tenant(name)?.ok_or_else(|| unknown(name))
}

/// # Errors
/// As [`require_tenant`].
pub fn require_registered(name: &str) -> Result<()> {
    if is_registered(name)? { Ok(()) } else { Err(unknown(name)) }
}

fn unknown(name: &str) -> Error {
    match check_tenant_name(name) {
        Ok(()) => Error::new(Reason::UnknownTenant).for_tenant(name),
        Err(error) => error,
    }
}

/// # Errors
/// `not_installed`.
pub fn is_registered(name: &str) -> Result<bool> {
    any(&TENANT, &Key::Text(name), |_| true)
}

/// Whose data key it is; `None` if the registry has none of that id.
///
/// # Errors
/// `not_installed`.
pub fn tenant_of_data_key(id: &DekId) -> Result<Option<String>> {
    // Before the read, so that no change of what is read goes unnoticed.
    watch()?;
    let mut found = None;
    scan::scan(&DATA_KEY_BY_ID, &Key::DekId(&id.0), |row| {
        found = row.column(data_key_column::TENANT);
        Ok(())
    })?;
    Ok(found)
}

thread_local! {
    /// For a generation of the registry.
    static HAS_OTHER_INDEX_KEYS: Cell<Option<(u64, bool)>> = const { Cell::new(None) };
}

/// Whether a tenant of this database has an index key in use beside its current one.
///
/// # Errors
/// `not_installed`.
pub fn has_other_index_keys() -> Result<bool> {
    let known = HAS_OTHER_INDEX_KEYS.get();
    if let Some((_, has)) =
        known.filter(|(generation, _)| *generation == invalidation::common_generation())
    {
        return Ok(has);
    }
    let generation = invalidation::common_generation();
    watch()?;
    let has = any(&OTHER_INDEX_KEYS, &Key::Indexed, |row| {
        let text = |column| row.column::<String>(column);
        let state = text(data_key_column::STATE);
        text(data_key_column::PURPOSE).as_deref() == Some(Purpose::Index.name())
            && matches!(state.as_deref(), Some("next" | "retired"))
    })?;
    HAS_OTHER_INDEX_KEYS.set(Some((generation, has)));
    Ok(has)
}

/// Object id of the table of data keys.
///
/// # Errors
/// `not_installed`.
pub fn data_keys_oid() -> Result<pg_sys::Oid> {
    scan::oid_of(DATA_KEY.name)
}

/// Data keys of a name that no tenant has mean that the registry lost the tenant.
///
/// # Errors
/// `tenant_row_missing`.
pub fn require_no_data_keys(name: &str) -> Result<()> {
    match any(&DATA_KEY, &Key::Text(name), |_| true)? {
        true => Err(Error::new(Reason::TenantRowMissing).for_tenant(name)),
        false => Ok(()),
    }
}

/// Whether a tenant, or without one any tenant, has a data key that isn't destroyed.
///
/// # Errors
/// `not_installed`.
pub fn has_data_keys(tenant: Option<&str>) -> Result<bool> {
    let key = tenant.map_or(Key::Any, Key::Text);
    any(&DATA_KEY, &key, |row| !row.is_null(data_key_column::WRAPPED))
}

/// Whether a role has a grant for this tenant in particular.
///
/// # Errors
/// `not_installed`.
pub fn has_grants(tenant: &str) -> Result<bool> {
    any(&ACCESS, &Key::Text(tenant), |_| true)
}

thread_local! {
    /// The generation of the registry at which it was found to be at home; 0: none.
    static AT_HOME: Cell<u64> = const { Cell::new(0) };
    /// The generation of the registry at which this word was the right one.
    static PASS: Cell<(u64, u128)> = const { Cell::new((0, 0)) };
}

/// The generation of the registry but for single tenants, after taking in what others committed
/// meanwhile.
fn generation() -> u64 {
    let _ = invalidation::generation();
    invalidation::common_generation()
}

/// Whether this registry was made for, or adopted by, this database. Read once for a generation of
/// the registry, and from then on changes of the tables count.
///
/// # Errors
/// `registry_copied` if it came with CREATE DATABASE ... TEMPLATE; `not_installed`.
pub fn require_at_home() -> Result<()> {
    if AT_HOME.get() == generation() {
        return Ok(());
    }
    // First, so that a table which takes another's place meanwhile is looked up again.
    let (generation, here) = (generation(), pg_sys::Oid::from(database()));
    watch()?;
    if !any(&HOME, &Key::Any, |row| row.column(home::DATABASE) == Some(here))? {
        return Err(Reason::RegistryCopied.into());
    }
    AT_HOME.set(generation);
    Ok(())
}

/// Whether this is the word by which the views of schema `cmk` are known to the functions behind
/// them: it stands in a table that only those read who may read the views. That a word is right is
/// read once for a generation of the registry: a view asks for each of its rows.
///
/// # Errors
/// `not_installed`.
pub fn is_pass(pass: &[u8; 16]) -> Result<bool> {
    let pass = u128::from_be_bytes(*pass);
    if PASS.get() == (generation(), pass) {
        return Ok(true);
    }
    let generation = generation();
    watch()?;
    // In one comparison, which takes as long whatever differs.
    let is_right = any(&HOME, &Key::Any, |row| {
        row.column::<pgrx::Uuid>(home::PASS).map(|known| u128::from_be_bytes(*known.as_bytes()))
            == Some(pass)
    })?;
    if is_right {
        PASS.set((generation, pass));
    }
    Ok(is_right)
}

/// From now on changes of the tables count.
///
/// # Errors
/// `not_installed`.
pub fn watch() -> Result<()> {
    let [tenant, data_key, access, home] =
        [TENANT, DATA_KEY, ACCESS, HOME].map(|table| scan::oid_of(table.name));
    invalidation::watch([tenant?, data_key?, access?, home?]);
    Ok(())
}

/// What `role` may do with the values of `tenant`, by grants to it, to roles whose privileges it
/// has, and to every tenant.
///
/// Superusers hold every privilege implicitly; here they need an explicit grant like anyone, so
/// that reading a tenant's data takes an act that shows.
///
/// # Errors
/// `not_installed`.
pub fn grant(role: Role, tenant: &str) -> Result<Grant> {
    let database = database();
    let id = tenant_id(tenant);
    let mut granted = Grant::default();
    // While something is taken back from this role and the table is locked, nobody waits to find
    // out what is left.
    let reduced = memory::read(|shared| brake::reduced_roles(shared.brakes, database, &id));
    if reduced.into_iter().any(|of| holds(role, pg_sys::Oid::from(of))) {
        let table = scan::oid_of(ACCESS.name)?;
        let mode = pg_sys::AccessShareLock as pg_sys::LOCKMODE;
        // SAFETY: in a transaction on the main thread; the lock goes with the transaction.
        if !unsafe { pg_sys::ConditionalLockRelationOid(table, mode) } {
            return Ok(granted);
        }
    }
    for (key, of) in [(Key::Text(tenant), Some(&id)), (Key::Null, None)] {
        scan::scan(&ACCESS, &key, |row| {
            let grantee =
                row.grantee(access::ROLE).map_or(pg_sys::InvalidOid, |grantee| grantee.oid());
            if holds(role, grantee) {
                let taken_back = memory::read(|shared| {
                    brake::taken_back(shared.brakes, database, of, grantee.to_u32())
                });
                let bound = row.column(access::BOUND) != Some(false);
                let of = |column, taken_back: bool| {
                    Right::of(row.column(column) == Some(true) && !taken_back, bound)
                };
                granted.encrypt = granted.encrypt.max(of(access::ENCRYPT, taken_back.0));
                granted.decrypt = granted.decrypt.max(of(access::DECRYPT, taken_back.1));
            }
            Ok(())
        })?;
    }
    Ok(granted)
}

/// Whether `role` holds any grant for `tenant`, bound ones included: then it may know of the
/// tenant.
///
/// # Errors
/// `not_installed`.
pub fn has_grant(role: Role, tenant: &str) -> Result<bool> {
    let Grant { encrypt, decrypt } = grant(role, tenant)?;
    Ok(encrypt.max(decrypt) != Right::Never)
}

/// The tenants that `role` may decrypt for, in the order of their names, `most` of them at most.
/// `None` if there are more by grants that are bound to the session's tenant.
///
/// # Errors
/// `not_installed`.
pub fn tenants_to_decrypt(role: Role, most: usize) -> Result<Option<Vec<String>>> {
    watch()?;
    let (mut granted, mut all) = (BTreeSet::new(), false);
    let (mut bound, mut all_bound) = (BTreeSet::new(), false);
    scan::scan(&ACCESS, &Key::Any, |row| {
        let grantee = row.grantee(access::ROLE).map_or(pg_sys::InvalidOid, |it| it.oid());
        if row.column(access::DECRYPT) == Some(true) && holds(role, grantee) {
            let (tenants, every) = match row.column(access::BOUND) != Some(false) {
                true => (&mut bound, &mut all_bound),
                false => (&mut granted, &mut all),
            };
            match row.column::<String>(access::TENANT) {
                Some(tenant) => drop(tenants.insert(tenant)),
                None => *every = true,
            }
        }
        Ok(())
    })?;
    if !all && (all_bound || !bound.is_subset(&granted)) {
        return Ok(None);
    }
    if all {
        scan::scan(&TENANT, &Key::Any, |row| {
            granted.extend(row.column::<String>(column::TENANT));
            Ok(())
        })?;
    }
    Ok(Some(granted.into_iter().take(most).collect()))
}

/// Both: the first would be true of a superuser for any role, the second also of memberships that
/// are not inherited.
fn holds(role: Role, grantee: pg_sys::Oid) -> bool {
    let role = pg_sys::Oid::from(role.0);
    if grantee == pg_sys::InvalidOid || role == pg_sys::InvalidOid {
        return false;
    }
    // SAFETY: catalog look-ups in a transaction on the main thread. A session may outlive its role,
    // which PostgreSQL would take for a member of itself.
    unsafe {
        !pg_sys::GetUserNameFromId(grantee, true).is_null()
            && pg_sys::has_privs_of_role(role, grantee)
            && pg_sys::is_member_of_role_nosuper(role, grantee)
    }
}

/// The name of one of this database's tenants in shared memory.
pub fn tenant_id(name: &str) -> TenantId {
    TenantId::new(&memory::counters().salt(), database(), name)
}

fn tenant_of(name: &str, row: &Row) -> Result<Tenant> {
    let damaged = || Error::new(Reason::KeyUri).for_tenant(name);
    let text = |column| row.column::<String>(column);
    let state = text(column::STATE).as_deref().and_then(TenantState::from_name);
    let epoch = row.column(column::EPOCH).ok_or_else(damaged)?;
    let uri = text(column::KEY_URI).ok_or_else(damaged)?;
    let options = row.json_text(column::OPTIONS).ok_or_else(damaged)?;
    let customer_key = CustomerKey::parse(&uri, &options, epoch);
    Ok(Tenant {
        name: name.into(),
        state: state.ok_or_else(damaged)?,
        epoch,
        customer_key: customer_key.map_err(|error| error.for_tenant(name))?,
        last_version: row.column(column::LAST_VERSION).ok_or_else(damaged)?,
        data_keys: Vec::new(),
    })
}

/// A row with a commitment of a wrong length can't be told from one of another data key.
fn data_key_of(row: &Row) -> Result<DataKey> {
    use data_key_column::{COMMITMENT, PURPOSE, STATE, VERSION, WRAPPED};
    let damaged = || Error::new(Reason::CommitmentMismatch);
    let text = |column| row.column::<String>(column);
    let commitment = row.column::<Vec<u8>>(COMMITMENT).and_then(|bytes| bytes.try_into().ok());
    Ok(DataKey {
        version: row.column(VERSION).ok_or_else(damaged)?,
        purpose: text(PURPOSE).as_deref().and_then(Purpose::from_name).ok_or_else(damaged)?,
        state: text(STATE).as_deref().and_then(DataKeyState::from_name).ok_or_else(damaged)?,
        commitment: Commitment::from_bytes(commitment.ok_or_else(damaged)?),
        wrapped: row.column::<Vec<u8>>(WRAPPED).map(Vec::into_boxed_slice),
    })
}
