//! What this process asked of key management services: one line in the log for each request, and
//! the ids of the requests that an act took, by which its event is joined with the trail of the
//! key's owner.

use super::elog::log_line;
use super::log_limit;
use super::report;
use cmk_audit::line::{self, KmsCall};
use cmk_audit::time;
use cmk_kms::trace::{self, CallTrace};
use std::cell::{Cell, RefCell};

/// Most ids of an event: those of the newest requests.
const MOST: usize = 64;

thread_local! {
    /// An act is under way.
    static IS_OPEN: Cell<bool> = const { Cell::new(false) };
    static OF_ACT: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

/// Logs, when it goes, what was asked meanwhile, be it that the wait was cancelled.
pub struct Trail {
    database: String,
}

impl Trail {
    pub fn begin() -> Self {
        // Now: after an ERROR nothing can be looked up.
        Self { database: report::database_name() }
    }
}

impl Drop for Trail {
    fn drop(&mut self) {
        self.log();
    }
}

impl Trail {
    /// Logs what was asked since the last time.
    pub fn log(&self) {
        for call in trace::take() {
            log(&call, &self.database);
            if let Some(id) = call.request_id.filter(|_| IS_OPEN.get()) {
                OF_ACT.with_borrow_mut(|ids| {
                    if ids.len() >= MOST {
                        ids.remove(0);
                    }
                    ids.push(id.into());
                });
            }
        }
        let lost = trace::take_lost();
        if lost > 0 {
            log_line(&format!("cmk_encrypt kms: {lost} requests were not logged"));
        }
    }
}

/// From here on requests are those of an act.
pub fn begin_act() {
    OF_ACT.take();
    IS_OPEN.set(true);
}

/// From here on they are of none.
pub fn end_act() {
    OF_ACT.take();
    IS_OPEN.set(false);
}

/// The ids of the requests of the act that is under way, since the last time.
pub fn take_request_ids() -> Vec<String> {
    OF_ACT.take()
}

fn log(call: &CallTrace, database: &str) {
    let outcome = call.outcome.name();
    if call.outcome.reason().is_some() {
        let subject =
            format!("kms operation={} outcome={outcome} key_uri={}", call.operation, call.key_uri);
        if !log_limit::admits(&subject) {
            return;
        }
    }
    log_line(&line::of_kms_call(&KmsCall {
        service: call.service,
        operation: &call.operation,
        key_uri: &call.key_uri,
        to_key_uri: call.to_key_uri.as_deref(),
        tenant: call.tenant.as_deref(),
        purpose: call.purpose.map(|purpose| purpose.name()),
        request_id: call.request_id.as_deref(),
        outcome,
        at: time::iso_8601(call.began),
        ms: call.took.as_millis() as u64,
        database,
    }));
}
