//! Settings. All are `PGC_SIGHUP`: from `postgresql.conf` or `ALTER SYSTEM`, one value for the
//! whole server, never from a session. A session that could set an endpoint could read data keys,
//! and one that could set the TTL would undo the revocation bound.

pub mod declare;
pub mod guard;
pub mod values;
