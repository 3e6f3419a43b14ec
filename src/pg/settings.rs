//! Settings. Those of keys and KMS are `PGC_SIGHUP`: from `postgresql.conf` or `ALTER SYSTEM`, one
//! value for the whole server, never from a session. A session that could set an endpoint could
//! read data keys, and one that could set the TTL would undo the revocation bound. Those of
//! protected columns say what a session wants to see and to write; what it may, grants say.

pub mod declare;
pub mod guard;
pub mod level;
pub mod values;
