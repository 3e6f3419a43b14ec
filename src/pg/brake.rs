//! Suspensions, evictions and revocations have to take effect, whoever holds locks on the registry.
//!
//! Whoever may write all tables can lock their rows or the tables themselves, and keep a brake
//! waiting. So where it would have to wait, its effect is put into shared memory first, for all
//! processes and until its transaction ends; who is in the way is named; and only then it waits.
//! Where nobody is in the way, its effect is put there when the commit begins: a commit may itself
//! wait, for a synchronous standby. In both cases it goes when all processes have been told to read
//! the registry.

use super::clock;
use super::identity::{database, pid};
use super::object_lock;
use super::registry::{read::tenant_id, scan, write};
use super::shared_memory::access;
use cmk_error::{Result, quoted};
use cmk_keyring::shared::brake::{self, Brake};
use cmk_keyring::shared::identity::TenantId;
use pgrx::datum::DatumWithOid;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::spi::Spi;
use pgrx::{PgLogLevel, PgSqlErrorCode, pg_guard, pg_sys};
use std::cell::RefCell;
use std::ffi::CStr;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};

/// This process has one on, or one to pull at commit.
static IS_ON: AtomicBool = AtomicBool::new(false);

thread_local! {
    /// What to do when the commit begins, and the level of the subtransaction that asked for it.
    static AT_COMMIT: RefCell<Vec<(i32, Effect)>> = const { RefCell::new(Vec::new()) };
}

#[derive(Clone, Copy)]
enum Effect {
    /// Its process and level are filled in when it is pulled.
    Brake(Brake),
    /// Of one tenant of this database, or of all.
    Eviction(Option<TenantId>),
}

impl Effect {
    /// False if there is no room for it.
    fn apply(self, level: i32) -> bool {
        match self {
            Self::Brake(brake) => access::with(|shared| {
                brake::pull(shared.brakes, shared.counters, brake.by(pid(), level))
            }),
            Self::Eviction(Some(tenant)) => {
                access::with(|shared| shared.evict(&tenant, clock::now()));
                true
            }
            Self::Eviction(None) => {
                evict_all();
                true
            }
        }
    }
}

/// Every tenant of this database, a part of the table at a time.
fn evict_all() {
    let now = clock::now();
    access::with(|shared| shared.begin_eviction(now));
    access::in_chunks(|range| {
        access::with(|shared| shared.evict_range(range.clone(), database(), now));
    });
    access::counters().notify_all();
}

#[inline]
pub fn is_on() -> bool {
    IS_ON.load(Relaxed)
}

/// When a commit begins.
pub fn commit_begins() {
    if is_on() {
        let effects = AT_COMMIT.with_borrow_mut(std::mem::take);
        for (level, effect) in effects {
            effect.apply(level);
        }
    }
}

/// When a subtransaction ends. If it rolled back, what it asked for is undone; else that now
/// belongs to the one around it.
pub fn subtransaction_ended(committed: bool) {
    let level = level();
    AT_COMMIT.with_borrow_mut(|effects| match committed {
        true => effects.iter_mut().for_each(|(of, _)| *of = (*of).min(level - 1)),
        false => effects.retain(|(of, _)| *of < level),
    });
    access::with(|shared| match committed {
        true => brake::keep(shared.brakes, pid(), level),
        false => brake::lift(shared.brakes, shared.counters, pid(), level),
    });
}

/// From here on the registry says what holds.
pub fn release() {
    if IS_ON.swap(false, Relaxed) {
        AT_COMMIT.with_borrow_mut(Vec::clear);
        access::with(|shared| brake::lift(shared.brakes, shared.counters, pid(), 0));
    }
}

/// What a brake is about to change.
pub struct Target<'a> {
    pub table: &'a CStr,
    /// The rows, as a query on `table` after FROM.
    pub rows: &'a str,
    pub arguments: &'a [DatumWithOid<'a>],
    /// The row lock that the change takes.
    pub lock: &'static str,
    /// These are all rows of the table. Of two that each lock what the other left, neither would
    /// come to an end, so they take turns.
    pub is_whole: bool,
}

/// Has a tenant suspended at once if it would take waiting, else when the commit begins.
///
/// # Errors
/// `read_only`, `not_installed`.
pub fn suspend(tenant: &str, target: &Target<'_>) -> Result<()> {
    let database = database();
    let brake = Brake::suspension(database, tenant_id(tenant));
    pull("suspension", target, Effect::Brake(brake))
}

/// Has a grant taken back; without a tenant, that for every tenant.
///
/// # Errors
/// `read_only`, `not_installed`.
pub fn revoke(
    tenant: Option<&str>,
    role: pg_sys::Oid,
    rights: (bool, bool),
    target: &Target<'_>,
) -> Result<()> {
    let database = database();
    let id = tenant.map(tenant_id);
    let brake = Brake::revocation(database, id, role.to_u32(), rights);
    pull("revocation", target, Effect::Brake(brake))
}

const EVICTION: &str = "eviction";

/// Has data keys dropped; without a tenant, those of all. Not undone by a rollback: it costs the
/// call to KMS that it is meant to cost.
///
/// # Errors
/// `read_only`, `not_installed`.
pub fn evict(tenant: Option<&str>, target: &Target<'_>) -> Result<()> {
    let id = tenant.map(tenant_id);
    pull(EVICTION, target, Effect::Eviction(id))
}

/// A brake goes with its process, should that end in the middle.
fn lift_at_exit() {
    static REGISTERED: AtomicU32 = AtomicU32::new(0);
    if REGISTERED.swap(pid(), Relaxed) != pid() {
        // SAFETY: on the main thread of a backend; the callback takes no argument.
        unsafe { pg_sys::before_shmem_exit(Some(on_exit), pg_sys::Datum::from(0_usize)) };
    }
}

#[pg_guard]
extern "C-unwind" fn on_exit(_code: i32, _argument: pg_sys::Datum) {
    release();
}

/// The present subtransaction's level.
fn level() -> i32 {
    // SAFETY: a look at this process's transaction state.
    unsafe { pg_sys::GetCurrentTransactionNestLevel() }
}

fn pull(what: &str, target: &Target<'_>, effect: Effect) -> Result<()> {
    write::require_writable()?;
    let is_shared = access::is_shared();
    if is_shared {
        lift_at_exit();
        IS_ON.store(true, Relaxed);
    }
    let table = scan::oid_of(target.table)?;
    let has_turn = !target.is_whole || object_lock::try_acquire(table, 0);
    if has_turn && table_is_free(table) && rows_are_free(target)? {
        if is_shared {
            AT_COMMIT.with_borrow_mut(|effects| effects.push((level(), effect)));
        }
        return Ok(());
    }
    let holds_already = is_shared && effect.apply(level());
    warn(what, table, holds_already);
    if !has_turn {
        object_lock::acquire(table, 0);
    }
    Ok(())
}

fn warn(what: &str, table: pg_sys::Oid, holds_already: bool) {
    let when = match (holds_already, what) {
        (true, EVICTION) => "It holds in every session already.",
        (true, _) => "It holds in every session already, and is undone only by a rollback.",
        (false, _) => "It takes effect when the wait is over.",
    };
    let message = format!("this {what} waits for locks of others on the key registry");
    ErrorReport::new(PgSqlErrorCode::ERRCODE_LOCK_NOT_AVAILABLE, message, "cmk_encrypt")
        .set_detail(format!("reason=registry_locked {}", blockers(table)))
        .set_hint(format!(
            "{when} To end the wait, end those processes (pg_terminate_backend) or prepared transactions."
        ))
        .report(PgLogLevel::WARNING);
}

/// Locks the table for changes of its rows; false if that would take waiting.
fn table_is_free(table: pg_sys::Oid) -> bool {
    let mode = pg_sys::RowExclusiveLock as pg_sys::LOCKMODE;
    // SAFETY: in a transaction on the main thread; the lock goes with the transaction.
    unsafe { pg_sys::ConditionalLockRelationOid(table, mode) }
}

/// Locks the rows that are free; true if those are all.
fn rows_are_free(target: &Target<'_>) -> Result<bool> {
    let Target { rows, arguments, lock, .. } = target;
    let all = write::execute(&format!("SELECT FROM {rows}"), arguments)?;
    let locked = format!("SELECT FROM {rows} {lock} SKIP LOCKED");
    Ok(write::execute(&locked, arguments)? == all)
}

/// Who holds locks on a table, or rows of it, that may be in the way: `blocked_by=PID,…
/// prepared=GID,…`.
fn blockers(table: pg_sys::Oid) -> String {
    const QUERY: &str = "
        SELECT pg_catalog.string_agg(DISTINCT l.pid::pg_catalog.text, ','),
               pg_catalog.string_agg(DISTINCT p.gid, ',')
          FROM pg_catalog.pg_locks l
          LEFT JOIN pg_catalog.pg_locks x
                 ON l.pid IS NULL AND x.pid IS NULL
                AND x.locktype OPERATOR(pg_catalog.=) 'transactionid'
                AND x.virtualtransaction OPERATOR(pg_catalog.=) l.virtualtransaction
          LEFT JOIN pg_catalog.pg_prepared_xacts p
                 ON p.transaction OPERATOR(pg_catalog.=) x.transactionid
         WHERE l.locktype OPERATOR(pg_catalog.=) 'relation' AND l.granted
           AND l.relation OPERATOR(pg_catalog.=) $1
           AND l.database OPERATOR(pg_catalog.=) $2
           AND l.mode OPERATOR(pg_catalog.<>) 'AccessShareLock'
           AND (l.pid IS NULL OR l.pid OPERATOR(pg_catalog.<>) pg_catalog.pg_backend_pid())";
    let database = pg_sys::Oid::from(database());
    let found = Spi::get_two_with_args::<String, String>(QUERY, &[table.into(), database.into()]);
    let (pids, gids) = found.unwrap_or_default();
    let field =
        |name: &str, value: Option<String>| value.map(|it| format!("{name}={}", quoted(&it)));
    let fields = [field("blocked_by", pids), field("prepared", gids)];
    fields.into_iter().flatten().collect::<Vec<_>>().join(" ")
}
