//! The audit trail of this process's transaction: events that wait for its commit, and what the
//! server log says of them.
//!
//! An event's row is written when the commit begins. So nobody holds a chain's lock for longer
//! than a commit takes, and a suspension, whose effect is in shared memory by then, waits for
//! nobody's trail. The log has a line at once: a rollback, or a crash, leaves that.

mod write;

use super::actor::Actor;
use super::elog::log_line;
use super::registry::write as registry;
use super::{kms_trail, log_limit};
use cmk_audit::Event;
use cmk_audit::line::{self, Outcome};
use cmk_audit::text::clean;
use cmk_error::{Error, quoted};
use foldhash::fast::RandomState;
use pgrx::pg_sys;
use std::cell::RefCell;
use std::collections::HashSet;
use std::hash::BuildHasher;
use std::sync::LazyLock;

/// What was done, by whom this process knows.
pub struct Act<'a> {
    pub act: &'a str,
    pub tenant: &'a str,
    pub data_key: Option<i32>,
    /// JSON.
    pub before: Option<String>,
    /// JSON.
    pub after: Option<String>,
}

thread_local! {
    /// Events of this transaction, and the level of the subtransaction that each is of.
    static PENDING: RefCell<Vec<(i32, Event)>> = const { RefCell::new(Vec::new()) };
    /// What those that are written once say.
    static SAID: RefCell<HashSet<u64>> = RefCell::default();
    /// Their lines, from when their rows are written until the commit is over.
    static WRITTEN: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

/// Writes an act down in this transaction. Where nothing can be written, as on a standby, the log
/// alone has it.
pub fn add(act: &Act<'_>) {
    let is_writable = registry::require_writable().is_ok();
    // SAFETY: in a transaction on the main thread, which may write.
    let xid = is_writable.then(|| unsafe { pg_sys::GetTopFullTransactionId().value });
    let mut event = event(act, xid.unwrap_or(0));
    event.kms_request_ids = kms_trail::take_request_ids();
    log_line(&line::of_act(&event, Outcome::Done));
    if is_writable {
        PENDING.with_borrow_mut(|pending| pending.push((level(), event)));
    }
}

/// The same unless this transaction has such an event: for functions that anybody can call as often
/// as they like.
pub fn add_once(act: &Act<'_>) {
    let said = said(act.act, act.tenant, act.data_key, &act.before, &act.after);
    if SAID.with_borrow_mut(|known| known.insert(said)) {
        add(act);
    }
}

/// An act that somebody asked for, and who that is: known before anything can fail, because after
/// an ERROR nothing can be looked up.
pub struct Asked(Event);

impl Asked {
    pub fn new(act: &str, tenant: &str) -> Self {
        kms_trail::begin_act();
        Self(event(&Act { act, tenant, data_key: None, before: None, after: None }, 0))
    }

    /// Logs that it was refused; without an error of ours, by PostgreSQL, such as for a wait that
    /// was cancelled.
    pub fn refused(&mut self, error: Option<&Error>) {
        // SAFETY: a look at the state of this process.
        self.0.transaction = unsafe { pg_sys::GetTopFullTransactionIdIfAny().value } as i64;
        let reason = error.map_or("interrupted", |error| error.reason.name());
        let Event { act, tenant, .. } = &self.0;
        let subject = format!("audit act={act} tenant={} reason={reason}", quoted(&clean(tenant)));
        if log_limit::admits(&subject) {
            self.0.kms_request_ids = kms_trail::take_request_ids();
            log_line(&line::of_refusal(&self.0, reason));
        }
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        kms_trail::end_act();
    }
}

fn event(act: &Act<'_>, xid: u64) -> Event {
    let actor = Actor::now();
    Event {
        tenant: act.tenant.to_owned(),
        origin: write::origin(),
        at: super::clock::wall(),
        session_role: actor.session_role,
        acting_role: actor.acting_role,
        client_address: actor.client_address,
        application_name: actor.application_name,
        database: actor.database,
        transaction: xid as i64,
        act: act.act.to_owned(),
        data_key: act.data_key,
        before: act.before.clone(),
        after: act.after.clone(),
        kms_request_ids: Vec::new(),
    }
}

/// What an event says, in short.
fn said(
    act: &str,
    tenant: &str,
    data_key: Option<i32>,
    before: &Option<String>,
    after: &Option<String>,
) -> u64 {
    static HASH: LazyLock<RandomState> = LazyLock::new(RandomState::default);
    HASH.hash_one((act, tenant, data_key, before, after))
}

/// The present subtransaction's level.
fn level() -> i32 {
    // SAFETY: a look at this process's transaction state.
    unsafe { pg_sys::GetCurrentTransactionNestLevel() }
}

/// Whether this transaction has events.
pub fn is_pending() -> bool {
    PENDING.with_borrow(|pending| !pending.is_empty())
}

/// When a commit begins: writes the rows.
pub fn commit_begins() {
    if !is_pending() {
        return;
    }
    let copy = |pending: &Vec<(i32, Event)>| pending.iter().map(|(_, it)| it.clone()).collect();
    let events = PENDING.with_borrow(copy);
    WRITTEN.set(write::append(events));
}

/// When a commit is over.
pub fn committed() {
    PENDING.with_borrow_mut(Vec::clear);
    SAID.with_borrow_mut(HashSet::clear);
    for line in WRITTEN.take() {
        log_line(&line);
    }
}

/// When a transaction was rolled back.
pub fn rolled_back() {
    WRITTEN.with_borrow_mut(Vec::clear);
    SAID.with_borrow_mut(HashSet::clear);
    for (_, event) in PENDING.take() {
        log_line(&line::of_act(&event, Outcome::RolledBack));
    }
}

/// When a subtransaction ends. If it rolled back, what was done in it did not happen; else that now
/// belongs to the one around it.
pub fn subtransaction_ended(committed: bool) {
    let level = level();
    let undone = PENDING.with_borrow_mut(|pending| match committed {
        true => {
            pending.iter_mut().for_each(|(of, _)| *of = (*of).min(level - 1));
            Vec::new()
        }
        false => pending.extract_if(.., |(of, _)| *of >= level).collect(),
    });
    for (_, event) in undone {
        let Event { act, tenant, data_key, before, after, .. } = &event;
        let undone = said(act, tenant, *data_key, before, after);
        SAID.with_borrow_mut(|known| known.remove(&undone));
        log_line(&line::of_act(&event, Outcome::RolledBack));
    }
}
