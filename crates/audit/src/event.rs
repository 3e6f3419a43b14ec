//! An event, and how it is chained to the one before.
//!
//! ```text
//! hash     SHA-256(field("cmk_encrypt/v1/audit-event") || field(tenant) || … || field(previous))
//! field    len32 || bytes; for null FF FF FF FF
//! number   8 bytes, two's complement; all numbers big-endian
//! texts    one field: the fields of all texts, one behind the other
//! ```
//!
//! Every field says how long it is, so no two events have one serialization.

use sha2::{Digest, Sha256};

/// SHA-256 (FIPS 180-4).
pub type Hash = [u8; 32];

/// The tenant of events that concern every tenant. No tenant can have this name.
pub const EVERY_TENANT: &str = "*";

/// What an administrator did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Or [`EVERY_TENANT`].
    pub tenant: String,
    /// Where it was written down: a database of a cluster.
    pub origin: String,
    /// When it was done, in microseconds since the Unix epoch.
    pub at: i64,
    /// Who logged in, or whom a superuser went on as.
    pub session_role: String,
    /// As whom: the current role of whoever called.
    pub acting_role: String,
    /// An address, `[local]`, or nothing for a process of the server's own.
    pub client_address: Option<String>,
    /// What the client says of itself.
    pub application_name: Option<String>,
    /// The name of the database.
    pub database: String,
    /// The number of the transaction.
    pub transaction: i64,
    /// The SQL function that was called.
    pub act: String,
    /// The version of the data key that it is about.
    pub data_key: Option<i32>,
    /// What was changed, as JSON.
    pub before: Option<String>,
    /// What it was changed to, as JSON.
    pub after: Option<String>,
    /// The requests to KMS that it took.
    pub kms_request_ids: Vec<String>,
}

/// The place of an event in its chain: that of one tenant in one origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// Counts from 1.
    pub number: i64,
    /// Of the event before. Of the first: that of the newest event of the tenant in another origin,
    /// or [`Link::START`].
    pub previous: Hash,
}

impl Link {
    /// What stands before the first event of all.
    pub const START: Hash = [0; 32];
}

impl Event {
    /// The hash of this event in this place.
    pub fn hash(&self, link: &Link) -> Hash {
        let mut fields = Fields(Sha256::new());
        fields.put(Some(b"cmk_encrypt/v1/audit-event"));
        fields.text(&self.tenant);
        fields.text(&self.origin);
        fields.number(Some(link.number));
        fields.number(Some(self.at));
        fields.text(&self.session_role);
        fields.text(&self.acting_role);
        fields.optional(self.client_address.as_deref());
        fields.optional(self.application_name.as_deref());
        fields.text(&self.database);
        fields.number(Some(self.transaction));
        fields.text(&self.act);
        fields.number(self.data_key.map(i64::from));
        fields.optional(self.before.as_deref());
        fields.optional(self.after.as_deref());
        fields.texts(&self.kms_request_ids);
        fields.put(Some(&link.previous));
        fields.0.finalize().into()
    }
}

struct Fields(Sha256);

impl Fields {
    fn put(&mut self, field: Option<&[u8]>) {
        self.0.update(length(field));
        self.0.update(field.unwrap_or_default());
    }

    fn text(&mut self, text: &str) {
        self.put(Some(text.as_bytes()));
    }

    fn optional(&mut self, text: Option<&str>) {
        self.put(text.map(str::as_bytes));
    }

    fn number(&mut self, number: Option<i64>) {
        self.put(number.map(i64::to_be_bytes).as_ref().map(<[u8; 8]>::as_slice));
    }

    fn texts(&mut self, texts: &[String]) {
        let mut all = Vec::new();
        for text in texts {
            all.extend(length(Some(text.as_bytes())));
            all.extend(text.as_bytes());
        }
        self.put(Some(&all));
    }
}

/// Fields are columns of a row, which PostgreSQL keeps below 1 GiB.
fn length(field: Option<&[u8]>) -> [u8; 4] {
    field.map_or(u32::MAX, |field| field.len() as u32).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(crate) fn event() -> Event {
        Event {
            tenant: "acme".into(),
            origin: "7423/16384".into(),
            at: 1_700_000_000_123_456,
            session_role: "alice".into(),
            acting_role: "dba".into(),
            client_address: Some("192.0.2.7".into()),
            application_name: None,
            database: "app".into(),
            transaction: 4711,
            act: "rotate_tenant".into(),
            data_key: Some(2),
            before: Some(r#"{"data_key":1}"#.into()),
            after: Some(r#"{"data_key":2}"#.into()),
            kms_request_ids: vec!["r1".into(), "r2".into()],
        }
    }

    const FIRST: Link = Link { number: 1, previous: Link::START };

    #[test]
    fn every_field_counts() {
        let changes: [fn(&mut Event); 15] = [
            |e| e.tenant.push('x'),
            |e| e.origin.push('x'),
            |e| e.at += 1,
            |e| e.session_role.push('x'),
            |e| e.acting_role.push('x'),
            |e| e.client_address = None,
            |e| e.application_name = Some(String::new()),
            |e| e.database.push('x'),
            |e| e.transaction += 1,
            |e| e.act.push('x'),
            |e| e.data_key = None,
            |e| e.before = None,
            |e| e.after = Some("{}".into()),
            |e| e.kms_request_ids.truncate(1),
            |e| e.kms_request_ids = vec!["r1r2".into()],
        ];
        let mut seen = vec![event().hash(&FIRST)];
        for change in changes {
            let mut changed = event();
            change(&mut changed);
            seen.push(changed.hash(&FIRST));
        }
        seen.push(event().hash(&Link { number: 2, ..FIRST }));
        seen.push(event().hash(&Link { previous: [1; 32], ..FIRST }));
        let all = seen.len();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), all);
    }

    #[test]
    fn nothing_moves_from_one_field_to_the_next() {
        let mut moved = event();
        moved.session_role = "alic".into();
        moved.acting_role = "edba".into();
        assert_ne!(moved.hash(&FIRST), event().hash(&FIRST));
    }
}
