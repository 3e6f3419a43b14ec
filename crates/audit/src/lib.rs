//! The trail of what administrators did: events, the hash chain that shows what was changed or
//! left out, and one line of JSON in the server log for each.
//!
//! Nothing here knows PostgreSQL or a key. `docs/audit.md` says the same for whoever verifies a
//! trail without us.

#![deny(missing_docs)]

pub mod cloudtrail;
pub mod event;
pub mod limit;
pub mod line;
pub mod text;
pub mod time;
pub mod verify;

pub use event::{Event, Hash, Link};
