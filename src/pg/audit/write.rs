//! Appends events to their chains.
//!
//! One lock for each of [`BUCKETS`] groups of tenants serializes their writers, from the beginning
//! of a commit to its end. They are taken in ascending order, and nobody waits for anything else
//! while holding them but the disk and a synchronous standby: so there is no deadlock. The rows are
//! read and written under the newest snapshot, so a transaction of any isolation level appends
//! behind what others committed meanwhile.

use crate::pg::guard::permitted;
use crate::pg::latest::{self, Connection, Statement};
use crate::pg::registry::tables::{AUDIT_CHAIN, AUDIT_EVENT};
use crate::pg::registry::{lock, write};
use crate::pg::report::IntoSql;
use crate::pg::{elog, identity, interrupt, object_lock};
use cmk_audit::{Event, Hash, Link, line};
use cmk_error::{Result, quoted};
use pgrx::datum::DatumWithOid;
use pgrx::pg_sys;
use pgrx::spi::Spi;
use std::time::{Duration, Instant};

/// A transaction that changes ten thousand tenants takes no more locks than this.
const BUCKETS: u8 = 64;

/// Microseconds from the Unix epoch to that of PostgreSQL.
const EPOCH_2000: i64 = 946_684_800_000_000;

/// Which chains this database writes: the cluster's identifier and the database's number. A copy of
/// the database, a subscriber, and a database that a dump was restored into have chains of their
/// own, beside those that came with the rows.
pub fn origin() -> String {
    // SAFETY: a look at shared memory that is set when the server starts.
    let system = unsafe { pg_sys::GetSystemIdentifier() };
    format!("{system}/{}", identity::database())
}

/// Appends the events, those of one tenant in their order. Returns a line of each for the log.
/// Where the extension is gone, dropped in this very transaction, nothing can be written.
pub fn append(mut events: Vec<Event>) -> Vec<String> {
    // Stable: those of a tenant stay in their order.
    events.sort_by(|a, b| (bucket(&a.tenant), &a.tenant).cmp(&(bucket(&b.tenant), &b.tenant)));
    let tables = (lock::own_table(AUDIT_CHAIN), lock::own_table(AUDIT_EVENT));
    let (Some(chain), Some(table)) = tables else {
        return events.iter().map(|it| line::of_act(it, line::Outcome::Committed)).collect();
    };
    // Whoever made it read-only after the act cannot have the event written.
    write::require_writable().or_raise();
    // SAFETY: sets a flag of this transaction: what was done is on disk when its commit returns.
    unsafe { pg_sys::ForceSyncCommit() };
    let as_owner = Owner::of(table);
    let lines = permitted(|| latest::connect(|connection| append_all(connection, chain, &events)));
    drop(as_owner);
    lines.or_raise()
}

fn append_all(
    connection: &Connection,
    chain: pg_sys::Oid,
    events: &[Event],
) -> Result<Vec<String>> {
    let statements = Statements::new(connection)?;
    let (mut locked, mut lines) = (None, Vec::with_capacity(events.len()));
    for of_tenant in events.chunk_by(|a, b| a.tenant == b.tenant) {
        let [first, ..] = of_tenant else { continue };
        let bucket = bucket(&first.tenant);
        if locked != Some(bucket) {
            lock_bucket(chain, bucket);
            locked = Some(bucket);
        }
        let mut link = statements.next_link(first)?;
        let mut head = None;
        for event in of_tenant {
            let hash = event.hash(&link);
            statements.insert(event, &link, &hash)?;
            lines.push(line::of_commit(event, &link, &hash));
            head = Some((event, link.number, hash));
            link = Link { number: link.number + 1, previous: hash };
        }
        // Once: of a row that is changed a thousand times in a transaction, each change would look
        // at all versions.
        if let Some((event, number, hash)) = head {
            statements.put_head(event, number, &hash)?;
        }
    }
    Ok(lines)
}

fn bucket(tenant: &str) -> u8 {
    let sum = tenant.bytes().fold(0_u8, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte));
    sum % BUCKETS
}

/// How long a commit waits for another's before it says so.
const PATIENCE: Duration = Duration::from_secs(1);

/// To the end of the transaction. Whoever holds it is about to commit, and may wait for a
/// synchronous standby that does not answer: who waits for that hears whom for.
fn lock_bucket(chain: pg_sys::Oid, bucket: u8) {
    // SAFETY: a setting of this session. One with a limit of its own waits no longer than that.
    let has_limit = unsafe { pg_sys::LockTimeout } > 0;
    let (bucket, began) = (bucket.into(), Instant::now());
    while !has_limit && began.elapsed() < PATIENCE {
        if object_lock::try_acquire(chain, bucket) {
            return;
        }
        let is_short = began.elapsed() < PATIENCE / 50;
        interrupt::pause(Duration::from_millis(if is_short { 1 } else { 10 }));
    }
    if !has_limit {
        warn(chain, bucket);
    }
    object_lock::acquire(chain, bucket);
}

fn warn(chain: pg_sys::Oid, bucket: u32) {
    const HOLDERS: &str = "
        SELECT pg_catalog.string_agg(l.pid::pg_catalog.text, ',')
          FROM pg_catalog.pg_locks l
         WHERE l.locktype OPERATOR(pg_catalog.=) 'object' AND l.granted
           AND l.database OPERATOR(pg_catalog.=) $1 AND l.classid OPERATOR(pg_catalog.=) $2
           AND l.objid OPERATOR(pg_catalog.=) $3";
    let oids = [identity::database(), chain.to_u32(), bucket].map(pg_sys::Oid::from);
    let look = || Spi::get_one_with_args::<String>(HOLDERS, &oids.map(Into::into));
    let pids = latest::with_snapshot(look).ok().flatten().unwrap_or_default();
    elog::warn(
        "this commit waits for another that writes to the audit trail",
        &format!("reason=registry_locked blocked_by={}", quoted(&pids)),
        "What a suspension, eviction or revocation takes away is taken away in every session \
         already, if the library is preloaded. The other commit may wait for a synchronous \
         standby: see wait_event in pg_stat_activity.",
    );
}

struct Statements<'a> {
    head: Statement<'a>,
    insert: Statement<'a>,
    put_head: Statement<'a>,
}

impl<'a> Statements<'a> {
    fn new(connection: &'a Connection) -> Result<Self> {
        use pg_sys::{BYTEAOID, INT4OID, INT8OID, TEXTARRAYOID, TEXTOID, TIMESTAMPTZOID, XID8OID};
        // Of the newest chain of the tenant if there is none of this origin.
        let head = c"
            SELECT c.number, c.hash, c.origin OPERATOR(pg_catalog.=) $2
              FROM cmk.audit_chain c
             WHERE c.tenant OPERATOR(pg_catalog.=) $1
             ORDER BY 3 DESC, c.at DESC, c.origin LIMIT 1";
        let insert = c"
            INSERT INTO cmk.audit_event
                   (tenant, origin, number, at, session_role, acting_role, client_address,
                    application_name, database, transaction, act, data_key, before, after,
                    kms_request_ids, previous_hash, hash)
            VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13::pg_catalog.json,
                    $14::pg_catalog.json, $15, $16, $17)";
        let put_head = c"
            INSERT INTO cmk.audit_chain (tenant, origin, number, hash, at)
            VALUES ($1, $2, $3, $4, $5)
            ON CONFLICT (tenant, origin) DO UPDATE
            SET number = excluded.number, hash = excluded.hash, at = excluded.at";
        let of_insert = [
            TEXTOID,
            TEXTOID,
            INT8OID,
            TIMESTAMPTZOID,
            TEXTOID,
            TEXTOID,
            TEXTOID,
            TEXTOID,
            TEXTOID,
            XID8OID,
            TEXTOID,
            INT4OID,
            TEXTOID,
            TEXTOID,
            TEXTARRAYOID,
            BYTEAOID,
            BYTEAOID,
        ];
        let of_put = [TEXTOID, TEXTOID, INT8OID, BYTEAOID, TIMESTAMPTZOID];
        Ok(Self {
            head: Statement::new(connection, head, &[TEXTOID, TEXTOID])?,
            insert: Statement::new(connection, insert, &of_insert)?,
            put_head: Statement::new(connection, put_head, &of_put)?,
        })
    }

    /// The place of this event if it comes next.
    fn next_link(&self, event: &Event) -> Result<Link> {
        let arguments = [event.tenant.as_str().into(), event.origin.as_str().into()];
        // SAFETY: arguments and columns of these types.
        let (number, hash, is_same_chain) = unsafe {
            self.head.run(&arguments, |rows| {
                (rows.first::<i64>(1), rows.first::<Vec<u8>>(2), rows.first::<bool>(3))
            })?
        };
        Ok(Link {
            number: number.filter(|_| is_same_chain == Some(true)).unwrap_or(0) + 1,
            previous: hash.and_then(|hash| hash.try_into().ok()).unwrap_or(Link::START),
        })
    }

    fn insert(&self, event: &Event, link: &Link, hash: &Hash) -> Result<()> {
        // SAFETY: 8 bytes, by value.
        let transaction = unsafe { DatumWithOid::new(event.transaction, pg_sys::XID8OID) };
        let arguments: [DatumWithOid<'_>; 17] = [
            event.tenant.as_str().into(),
            event.origin.as_str().into(),
            link.number.into(),
            at(event),
            event.session_role.as_str().into(),
            event.acting_role.as_str().into(),
            event.client_address.as_deref().into(),
            event.application_name.as_deref().into(),
            event.database.as_str().into(),
            transaction,
            event.act.as_str().into(),
            event.data_key.into(),
            event.before.as_deref().into(),
            event.after.as_deref().into(),
            event.kms_request_ids.clone().into(),
            link.previous.as_slice().into(),
            hash.as_slice().into(),
        ];
        // SAFETY: arguments of these types.
        unsafe { self.insert.run(&arguments, |_| ()) }
    }

    fn put_head(&self, event: &Event, number: i64, hash: &Hash) -> Result<()> {
        let arguments = [
            event.tenant.as_str().into(),
            event.origin.as_str().into(),
            number.into(),
            hash.as_slice().into(),
            at(event),
        ];
        // SAFETY: arguments of these types.
        unsafe { self.put_head.run(&arguments, |_| ()) }
    }
}

fn at(event: &Event) -> DatumWithOid<'static> {
    // SAFETY: 8 bytes, by value: microseconds since 2000.
    unsafe { DatumWithOid::new(event.at - EPOCH_2000, pg_sys::TIMESTAMPTZOID) }
}

/// The rights of the owner of a table, until it goes: a commit runs with those of the session.
/// After an ERROR, PostgreSQL restores them.
struct Owner {
    role: pg_sys::Oid,
    context: i32,
}

impl Owner {
    fn of(table: pg_sys::Oid) -> Self {
        let (mut role, mut context) = (pg_sys::InvalidOid, 0);
        // SAFETY: in a transaction on the main thread; the table is there, and open only while its
        // owner is read.
        unsafe {
            let lock = pg_sys::AccessShareLock as pg_sys::LOCKMODE;
            let relation = pg_sys::table_open(table, lock);
            let owner = (*(*relation).rd_rel).relowner;
            pg_sys::table_close(relation, pg_sys::NoLock as pg_sys::LOCKMODE);
            pg_sys::GetUserIdAndSecContext(&mut role, &mut context);
            let local = context | pg_sys::SECURITY_LOCAL_USERID_CHANGE as i32;
            pg_sys::SetUserIdAndSecContext(owner, local);
        }
        Self { role, context }
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        // SAFETY: what was there before.
        unsafe { pg_sys::SetUserIdAndSecContext(self.role, self.context) };
    }
}
