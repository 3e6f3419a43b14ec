//! The registry's tables, their indexes and columns. Columns count from 1.

use std::ffi::CStr;

/// A table and the unique index that finds rows by one of their columns.
pub struct Table {
    pub name: &'static CStr,
    pub index: &'static CStr,
}

pub const TENANT: Table = Table { name: c"tenant", index: c"tenant_pkey" };
pub const DATA_KEY: Table = Table { name: c"data_key", index: c"data_key_pkey" };
/// The same table, found by `dek_id`.
pub const DATA_KEY_BY_ID: Table = Table { name: c"data_key", index: c"data_key_dek_id_key" };
/// The index keys that are in use beside current ones.
pub const OTHER_INDEX_KEYS: Table =
    Table { name: c"data_key", index: c"data_key_other_index_keys" };
pub const ACCESS: Table = Table { name: c"access", index: c"access_tenant_role_key" };
/// Has no index, and one row, or two on a subscriber.
pub const HOME: Table = Table { name: c"home", index: c"home" };
pub const DATA_KEY_USE: &CStr = c"data_key_use";
pub const KEY_EVENT: &CStr = c"key_event";
pub const AUDIT_EVENT: &CStr = c"audit_event";
pub const AUDIT_CHAIN: &CStr = c"audit_chain";

pub mod home {
    pub const DATABASE: usize = 1;
    pub const PASS: usize = 2;
}

pub mod tenant {
    pub const TENANT: usize = 1;
    pub const STATE: usize = 2;
    pub const KEY_URI: usize = 3;
    pub const OPTIONS: usize = 4;
    pub const EPOCH: usize = 5;
    pub const LAST_VERSION: usize = 8;
}

pub mod data_key {
    pub const TENANT: usize = 1;
    pub const VERSION: usize = 2;
    pub const PURPOSE: usize = 3;
    pub const STATE: usize = 4;
    pub const DEK_ID: usize = 5;
    pub const COMMITMENT: usize = 6;
    pub const WRAPPED: usize = 7;
    pub const WRAPPED_BY: usize = 8;
    pub const NEXT_WRAPPED: usize = 10;
    pub const NEXT_WRAPPED_BY: usize = 11;
    /// What makes a row this data key and no other.
    pub const IDENTITY: [usize; 4] = [TENANT, VERSION, PURPOSE, COMMITMENT];
}

pub mod access {
    pub const TENANT: usize = 1;
    pub const ROLE: usize = 2;
    pub const ENCRYPT: usize = 3;
    pub const DECRYPT: usize = 4;
    pub const BOUND: usize = 7;
}
