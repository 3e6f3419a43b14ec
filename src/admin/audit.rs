//! The audit trail: what was done is an event, what was refused a line in the log.

use crate::pg::audit::{self, Asked};
use cmk_audit::event::EVERY_TENANT;
use cmk_error::Result;
use serde_json::Value;

/// What somebody did. Of keys, only what names them: never their bytes, wrapped or not.
pub struct Act<'a> {
    /// The SQL function.
    pub act: &'a str,
    /// `None`: every tenant.
    pub tenant: Option<&'a str>,
    /// The version of the data key that it is about.
    pub data_key: Option<i32>,
    /// What was changed, as far as it was.
    pub before: Option<Value>,
    /// What it was changed to.
    pub after: Option<Value>,
}

/// Makes an event of what was done: a line in the log now, and a row of `cmk.audit_event` when the
/// transaction commits. In a read-only transaction and on a standby the line is all.
pub fn record(act: &Act<'_>) {
    audit::add(&act.as_text());
}

/// The same unless this transaction has such an event already.
pub fn record_once(act: &Act<'_>) {
    audit::add_once(&act.as_text());
}

impl Act<'_> {
    fn as_text(&self) -> audit::Act<'_> {
        let json = |value: &Option<Value>| value.as_ref().map(Value::to_string);
        audit::Act {
            act: self.act,
            tenant: self.tenant.unwrap_or(EVERY_TENANT),
            data_key: self.data_key,
            before: json(&self.before),
            after: json(&self.after),
        }
    }
}

/// Runs an act that somebody asked for. If it is refused, whatever with, the log has a line.
///
/// # Errors
/// Those of `work`.
pub fn audited<R>(act: &'static str, tenant: &str, work: impl FnOnce() -> Result<R>) -> Result<R> {
    let mut open = Open { asked: Asked::new(act, tenant), is_over: false };
    let done = work();
    open.is_over = true;
    if let Err(error) = &done {
        open.asked.refused(Some(error));
    }
    done
}

/// An act under way: one that unwinds, as for a cancelled wait, leaves a line, too.
struct Open {
    asked: Asked,
    is_over: bool,
}

impl Drop for Open {
    fn drop(&mut self) {
        if !self.is_over {
            self.asked.refused(None);
        }
    }
}
