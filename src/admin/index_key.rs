//! Index keys: made, and replaced while values are searched and stay unique.
//!
//! A replacement has two steps, and all values are sealed anew after each. Between the first and
//! the second, values carry the tokens of both keys, and searches go by the old one's. After the
//! second, they carry the new one's only, and searches go by either. So at no moment are there
//! values that one index could not tell apart: [`finish`] asks for the index that does by then.

use super::audit::{Act, record};
use super::data_key;
use super::tenant::lock;
use crate::column::token_scan::{self, TokensOf};
use crate::pg::guard::permitted;
use crate::pg::latest;
use crate::pg::registry::{read, write};
use cmk_error::{Error, Reason, Result, quoted};
use cmk_keyring::tenant::{DataKey, DataKeyState, IndexKeys, Tenant, TenantState, index_key_id};
use cmk_kms::Purpose;
use pgrx::datum::DatumWithOid;
use serde_json::json;
use std::ffi::CStr;

/// Makes a tenant's next index key, or its first. Returns its version.
///
/// # Errors
/// As [`lock`]; `index_rotation_open` while another replacement is under way, or not all of the
/// tenant's values have exactly the tokens of the current key; `index_rotation_refused` for a
/// foreign key that compares tokens; what KMS refuses with.
pub fn rotate(tenant: &str) -> Result<i32> {
    // Before the lock, since that may take long. Whoever writes the tokens of an earlier step has
    // begun before that was over.
    if read::require_tenant(tenant)?.index_keys().is_ok() {
        token_scan::wait_for_writers()?;
    }
    let locked = lock(tenant, Some(TenantState::Active))?;
    let keys = match locked.index_keys() {
        Err(error) if error.reason == Reason::NoIndexKey => {
            let version = data_key::add(&locked, Purpose::Index)?;
            data_key::record_change("rotate_index_key", &locked, Purpose::Index, version);
            return Ok(version);
        }
        keys => keys?,
    };
    if keys.next.is_some() {
        return Err(Error::new(Reason::IndexRotationOpen).for_tenant(tenant));
    }
    refuse_obstacles(tenant, &[FOREIGN_KEYS])?;
    require(&locked, &TokensOf { first: index_key_id(&keys.current), next: None })?;
    let version = locked.next_version()?;
    // Headers name an index key by four bytes: by those of no other of the tenant.
    let made = loop {
        let made = data_key::make(&locked, Purpose::Index)?;
        if locked.index_key(index_key_id(&made.commitment.dek_id())).is_none() {
            break made;
        }
    };
    data_key::insert(&locked, version, Purpose::Index, "next", &made)?;
    let after = Some(json!({ "next": version }));
    let (act, data_key) = ("rotate_index_key", Some(version));
    record(&Act { act, tenant: Some(tenant), data_key, before: None, after });
    Ok(version)
}

/// Has the next index key take over, if all values have its token. False if there is none.
///
/// # Errors
/// As [`lock`]; `index_rotation_open` if a value lacks it; `index_rotation_refused` for a unique
/// index without a twin that keeps values unique under the next key.
pub fn finish(tenant: &str) -> Result<bool> {
    let expected = read::require_tenant(tenant)?.index_keys();
    let Ok(keys @ IndexKeys { current, next: Some(next), .. }) = expected else {
        return Ok(false);
    };
    refuse_obstacles(tenant, &[FOREIGN_KEYS, LONE_INDEXES])?;
    // Before the lock, since that may take long. Whoever began to write before the first step may
    // not have known of it.
    token_scan::wait_for_writers()?;
    let locked = lock(tenant, Some(TenantState::Active))?;
    if locked.index_keys()? != keys {
        return Err(Error::new(Reason::TenantBusy).for_tenant(tenant));
    }
    let (first, next) = (index_key_id(&current), Some(index_key_id(&next)));
    require(&locked, &TokensOf { first, next })?;
    data_key::retire(&locked, Purpose::Index)?;
    const PROMOTE: &str = "
        UPDATE cmk.data_key SET state = 'current'
         WHERE tenant OPERATOR(pg_catalog.=) $1 AND purpose OPERATOR(pg_catalog.=) 'index'
           AND state OPERATOR(pg_catalog.=) 'next'";
    write::one(PROMOTE, &[tenant.into()])?;
    let before = index_key(&locked, DataKeyState::Current);
    let after = index_key(&locked, DataKeyState::Next);
    record(&Act {
        act: "finish_index_rotation",
        tenant: Some(tenant),
        data_key: after,
        before: Some(json!({ "current": before, "next": after })),
        after: Some(json!({ "current": after })),
    });
    Ok(true)
}

/// Gives a replacement up before its second step. False if there is none.
///
/// # Errors
/// As [`lock`].
pub fn cancel(tenant: &str) -> Result<bool> {
    let locked = lock(tenant, None)?;
    const CANCEL: &str = "
        UPDATE cmk.data_key
           SET state = 'destroyed', wrapped = NULL, next_wrapped = NULL, next_wrapped_by = NULL
         WHERE tenant OPERATOR(pg_catalog.=) $1 AND purpose OPERATOR(pg_catalog.=) 'index'
           AND state OPERATOR(pg_catalog.=) 'next'";
    let is_cancelled = permitted(|| write::execute(CANCEL, &[tenant.into()]))? > 0;
    if is_cancelled {
        let next = index_key(&locked, DataKeyState::Next);
        record(&Act {
            act: "cancel_index_rotation",
            tenant: Some(tenant),
            data_key: next,
            before: Some(json!({ "next": next })),
            after: None,
        });
    }
    Ok(is_cancelled)
}

/// The version of the tenant's index key in that state.
fn index_key(tenant: &Tenant, state: DataKeyState) -> Option<i32> {
    let is_it = |key: &&DataKey| key.purpose == Purpose::Index && key.state == state;
    tenant.data_keys.iter().find(is_it).map(|key| key.version)
}

/// # Errors
/// `index_rotation_open`, which names the column.
fn require(tenant: &Tenant, tokens: &TokensOf) -> Result<()> {
    match token_scan::find_other(&tenant.name, tokens)? {
        None => Ok(()),
        Some(column) => {
            let info = format!("column={}", quoted(&column));
            Err(Error::new(Reason::IndexRotationOpen).for_tenant(&tenant.name).with_info(info))
        }
    }
}

/// Refuses what can't stay as it is while the tenant's values get other tokens: foreign keys that
/// compare tokens, and, before searches go by the next key, unique indexes on tokens without a twin
/// on the same columns by the tokens of that key. Only those of tables that hold values of the
/// tenant.
fn refuse_obstacles(tenant: &str, queries: &[&CStr]) -> Result<()> {
    let tables = token_scan::tables_of(tenant)?;
    for query in queries {
        if let Some(found) = first(query, &[tables.clone().into()])? {
            let error = Error::new(Reason::IndexRotationRefused).for_tenant(tenant);
            return Err(error.with_info(format!("obstacle={}", quoted(&found))));
        }
    }
    Ok(())
}

const FOREIGN_KEYS: &CStr = c"
    SELECT pg_catalog.format('%I on %s', c.conname, c.conrelid::pg_catalog.regclass)
      FROM pg_catalog.pg_constraint c
     CROSS JOIN LATERAL (SELECT t.relation FROM cmk_internal.table_tree(c.conrelid) t
                         UNION SELECT t.relation FROM cmk_internal.table_tree(c.confrelid) t) t
     WHERE c.contype OPERATOR(pg_catalog.=) 'f'
       AND t.relation::pg_catalog.oid OPERATOR(pg_catalog.=) ANY ($1)
       AND 'pg_catalog.===(pg_catalog.cmk_text, pg_catalog.cmk_text)'::pg_catalog.regoperator
           OPERATOR(pg_catalog.=) ANY (c.conpfeqop)
     ORDER BY 1";

const LONE_INDEXES: &CStr = c"
    SELECT i.index::pg_catalog.text
      FROM cmk_internal.lone_unique_indexes() i (index)
      JOIN pg_catalog.pg_index x
        ON x.indexrelid OPERATOR(pg_catalog.=) i.index::pg_catalog.oid
     CROSS JOIN LATERAL cmk_internal.table_tree(x.indrelid) t
     WHERE t.relation::pg_catalog.oid OPERATOR(pg_catalog.=) ANY ($1)
     ORDER BY 1";

/// As things are now: the transaction may have begun before.
fn first(query: &CStr, arguments: &[DatumWithOid<'_>]) -> Result<Option<String>> {
    // SAFETY: each of the queries returns one text.
    let lines = latest::select(query, arguments, |rows, row| unsafe { rows.get(row, 1) })?;
    Ok(lines.into_iter().flatten().next())
}
