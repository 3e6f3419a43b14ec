//! Reads the audit trail: whether it is whole, and whether the other side has the same requests.

use crate::pg::registry::read;
use cmk_audit::cloudtrail::{self, Match, Ours};
use cmk_audit::verify::Chain;
use cmk_audit::{Event, Hash, Link};
use cmk_error::{Reason, Result};
use pgrx::datum::DatumWithOid;
use pgrx::spi::{Spi, SpiHeapTupleData, SpiResult};
use serde_json::Value;
use std::collections::BTreeSet;

/// A chain, verified.
pub struct Verified {
    pub tenant: String,
    pub origin: String,
    pub chain: Chain,
    /// What the table of heads says of the last event.
    pub head: Option<(i64, Hash)>,
}

/// Rows fetched at once.
const BATCH: std::ffi::c_long = 1_000;

/// One statement, so one snapshot: what others commit meanwhile is in both tables or in none. What
/// no event of ours has, such as the time infinity, becomes something that has another hash.
const EVENTS: &str = r#"
    SELECT COALESCE(e.tenant, c.tenant), COALESCE(e.origin, c.origin), c.number, c.hash, e.number,
           CASE WHEN pg_catalog.isfinite(e.at)
                THEN (pg_catalog."extract"('epoch', e.at)
                      OPERATOR(pg_catalog.*) 1000000)::pg_catalog.int8 END,
           e.session_role, e.acting_role, e.client_address, e.application_name, e.database,
           CASE WHEN e.transaction::pg_catalog.text::pg_catalog.numeric
                     OPERATOR(pg_catalog.<=) 9223372036854775807
                THEN e.transaction::pg_catalog.text::pg_catalog.int8 END,
           e.act, e.data_key, e.before::pg_catalog.text, e.after::pg_catalog.text,
           CASE WHEN EXISTS (SELECT FROM pg_catalog.unnest(e.kms_request_ids) i (id)
                              WHERE i.id IS NULL)
                THEN '{not written by us}' ELSE e.kms_request_ids END,
           e.previous_hash, e.hash
      FROM cmk.audit_event e
      FULL JOIN cmk.audit_chain c
             ON c.tenant OPERATOR(pg_catalog.=) e.tenant
            AND c.origin OPERATOR(pg_catalog.=) e.origin
     WHERE $1 IS NULL OR COALESCE(e.tenant, c.tenant) OPERATOR(pg_catalog.=) $1
     ORDER BY 1, 2, 5"#;

/// Verifies the chains of a tenant, or all: one event after the other.
///
/// # Errors
/// `registry_unusable`.
pub fn verify(tenant: Option<&str>) -> Result<Vec<Verified>> {
    let arguments = [DatumWithOid::from(tenant)];
    let read = Spi::connect(|client| -> SpiResult<Vec<Verified>> {
        let mut verified: Vec<Verified> = Vec::new();
        let mut cursor = client.open_cursor(EVENTS, &arguments);
        loop {
            let rows = cursor.fetch(BATCH)?;
            if rows.is_empty() {
                return Ok(verified);
            }
            for row in rows {
                add(&mut verified, &row)?;
            }
        }
    });
    let mut verified = read.map_err(|_| Reason::RegistryUnusable)?;
    for Verified { tenant, origin, chain, head } in &mut verified {
        chain.end(*head, |hash| is_event_elsewhere(tenant, origin, hash));
    }
    Ok(verified)
}

fn add(verified: &mut Vec<Verified>, row: &SpiHeapTupleData<'_>) -> SpiResult<()> {
    let text = |column| row.get::<String>(column);
    let number = |column| row.get::<i64>(column);
    let hash = |column| -> SpiResult<Option<Hash>> {
        Ok(row.get::<Vec<u8>>(column)?.and_then(|hash| hash.try_into().ok()))
    };
    let (tenant, origin) = (text(1)?.unwrap_or_default(), text(2)?.unwrap_or_default());
    let last = verified.last();
    if last.is_none_or(|last| (&last.tenant, &last.origin) != (&tenant, &origin)) {
        let head = number(3)?.zip(hash(4)?);
        let chain = Chain::default();
        verified.push(Verified { tenant: tenant.clone(), origin: origin.clone(), chain, head });
    }
    let Some(place) = number(5)? else { return Ok(()) };
    let event = Event {
        tenant,
        origin,
        at: number(6)?.unwrap_or_default(),
        session_role: text(7)?.unwrap_or_default(),
        acting_role: text(8)?.unwrap_or_default(),
        client_address: text(9)?,
        application_name: text(10)?,
        database: text(11)?.unwrap_or_default(),
        transaction: number(12)?.unwrap_or_default(),
        act: text(13)?.unwrap_or_default(),
        data_key: row.get(14)?,
        before: text(15)?,
        after: text(16)?,
        kms_request_ids: row.get(17)?.unwrap_or_default(),
    };
    let link = Link { number: place, previous: hash(18)?.unwrap_or(Link::START) };
    if let Some(last) = verified.last_mut() {
        last.chain.add(&event, &link, &hash(19)?.unwrap_or(Link::START));
    }
    Ok(())
}

/// Whether the tenant has an event of this hash in another chain.
fn is_event_elsewhere(tenant: &str, origin: &str, hash: &Hash) -> bool {
    const QUERY: &str = "
        SELECT true FROM cmk.audit_event e
         WHERE e.tenant OPERATOR(pg_catalog.=) $1 AND e.origin OPERATOR(pg_catalog.<>) $2
           AND e.hash OPERATOR(pg_catalog.=) $3
         LIMIT 1";
    let arguments = [tenant.into(), origin.into(), hash.as_slice().into()];
    matches!(Spi::get_one_with_args(QUERY, &arguments), Ok(Some(true)))
}

/// What is no JSON of CloudTrail's records, or none that we can read.
pub fn no_records(tenant: &str, argument: &str) -> cmk_error::Error {
    let error = cmk_error::Error::new(Reason::CloudTrail).for_tenant(tenant);
    error.with_info(format!("argument={argument}"))
}

/// Joins the requests that events of a tenant tell of, and lines of the server log if there are
/// any, with records of CloudTrail.
///
/// # Errors
/// `cloudtrail` if either is something else; `unknown_tenant`; `registry_unusable`.
pub fn match_cloudtrail(tenant: &str, events: &Value, calls: Option<&Value>) -> Result<Vec<Match>> {
    let refused = |argument: &str| no_records(tenant, argument);
    let records = cloudtrail::records(events).ok_or_else(|| refused("events"))?;
    let lines = match calls {
        None => Vec::new(),
        Some(calls) => calls.as_array().cloned().ok_or_else(|| refused("calls"))?,
    };
    let keys = keys(tenant)?;
    let mut ours = requests(tenant)?;
    if keys.is_empty() && ours.is_empty() {
        read::require_registered(tenant)?;
    }
    ours.extend(lines.iter().filter_map(|line| Ours::from_line(line, tenant, &keys)));
    Ok(cloudtrail::join(tenant, &keys, ours, calls.is_some(), &records))
}

/// The keys that wrap a tenant's data keys, or did.
fn keys(tenant: &str) -> Result<BTreeSet<String>> {
    const QUERY: &str = "
        SELECT t.key_uri FROM cmk.tenant t WHERE t.tenant OPERATOR(pg_catalog.=) $1
        UNION SELECT k.wrapped_by FROM cmk.data_key k WHERE k.tenant OPERATOR(pg_catalog.=) $1
        UNION SELECT e.after OPERATOR(pg_catalog.->>) 'key_uri'
                FROM cmk.audit_event e
               WHERE e.tenant OPERATOR(pg_catalog.=) $1
                 AND (e.after OPERATOR(pg_catalog.->>) 'key_uri') IS NOT NULL";
    rows(QUERY, tenant, |row| Ok(row.get::<String>(1)?.unwrap_or_default()))
}

/// The requests that the tenant's events tell of.
fn requests(tenant: &str) -> Result<Vec<Ours>> {
    const QUERY: &str = r#"
        SELECT r.id, e.act,
               CASE WHEN pg_catalog.isfinite(e.at)
                    THEN (pg_catalog."extract"('epoch', e.at)
                          OPERATOR(pg_catalog.*) 1000000)::pg_catalog.int8 END
          FROM cmk.audit_event e
         CROSS JOIN LATERAL pg_catalog.unnest(e.kms_request_ids) AS r (id)
         WHERE e.tenant OPERATOR(pg_catalog.=) $1"#;
    rows(QUERY, tenant, |row| {
        let request_id = row.get::<String>(1)?.unwrap_or_default();
        Ok(Ours { request_id, act: row.get(2)?, at: row.get(3)?, ..Ours::default() })
    })
}

fn rows<R, C: FromIterator<R>>(
    query: &str,
    tenant: &str,
    read: impl Fn(&SpiHeapTupleData<'_>) -> SpiResult<R>,
) -> Result<C> {
    let found = Spi::connect(|client| -> SpiResult<C> {
        client.select(query, None, &[tenant.into()])?.map(|row| read(&row)).collect()
    });
    found.map_err(|_| Reason::RegistryUnusable.into())
}
