//! How plaintexts compare: as the type that is protected does.

use super::kind::Kind;
use crate::pg::collation::is_deterministic;
use crate::pg::datum::Bytea;
use cmk_error::Result;
use pgrx::pg_sys;
use std::cmp::Ordering;
use std::ffi::c_char;

unsafe extern "C-unwind" {
    // Bound again without pgrx's jump target: called for every comparison of a sort. Should it
    // raise an ERROR, that jumps over frames that have nothing to drop.
    fn varstr_cmp(
        a: *const c_char,
        a_len: i32,
        b: *const c_char,
        b_len: i32,
        collation: pg_sys::Oid,
    ) -> i32;
}

impl Kind {
    /// A plaintext as a value of the type that is protected.
    fn value(self, clear: &[u8]) -> Result<pg_sys::Datum> {
        self.reveal(Bytea::copy(&[clear])?)
    }

    /// # Errors
    /// `out_of_memory`, `not_text`.
    pub fn are_equal(self, a: &[u8], b: &[u8], collation: pg_sys::Oid) -> Result<bool> {
        if a == b {
            return Ok(true);
        }
        let function = match self {
            Self::Bytea => return Ok(false),
            Self::Text if is_deterministic(collation) => return Ok(false),
            Self::Text => pg_sys::F_TEXTEQ,
            Self::Jsonb => pg_sys::F_JSONB_EQ,
        };
        let (a, b) = (self.value(a)?, self.value(b)?);
        // SAFETY: a function of two values of that type.
        Ok(unsafe { call_2(function, collation, a, b) }.value() != 0)
    }

    /// # Errors
    /// `out_of_memory`, `not_text`.
    #[inline]
    pub fn compare(self, a: &[u8], b: &[u8], collation: pg_sys::Oid) -> Result<Ordering> {
        Ok(match self {
            Self::Bytea => a.cmp(b),
            // SAFETY: both are of the lengths given; PostgreSQL copies what it has to terminate.
            Self::Text => unsafe {
                let (a_start, b_start) = (a.as_ptr().cast(), b.as_ptr().cast());
                let (a_len, b_len) = (a.len() as i32, b.len() as i32);
                varstr_cmp(a_start, a_len, b_start, b_len, collation).cmp(&0)
            },
            Self::Jsonb => {
                let (a, b) = (self.value(a)?, self.value(b)?);
                // SAFETY: a function of two values of that type, which returns an int4.
                let order = unsafe { call_2(pg_sys::F_JSONB_CMP, collation, a, b) };
                (order.value() as i32).cmp(&0)
            }
        })
    }

    /// The hash that the type that is protected has.
    ///
    /// # Errors
    /// `out_of_memory`, `not_text`.
    pub fn hash(self, clear: &[u8], collation: pg_sys::Oid) -> Result<pg_sys::Datum> {
        let function = match self {
            Self::Text => pg_sys::F_HASHTEXT,
            Self::Bytea => pg_sys::F_HASHVARLENA,
            Self::Jsonb => pg_sys::F_JSONB_HASH,
        };
        let function = pg_sys::Oid::from(function);
        // SAFETY: a function of one value of that type.
        Ok(unsafe { pg_sys::OidFunctionCall1Coll(function, collation, self.value(clear)?) })
    }

    /// The same in 64 bits.
    ///
    /// # Errors
    /// `out_of_memory`, `not_text`.
    pub fn extended_hash(
        self,
        clear: &[u8],
        seed: pg_sys::Datum,
        collation: pg_sys::Oid,
    ) -> Result<pg_sys::Datum> {
        let function = match self {
            Self::Text => pg_sys::F_HASHTEXTEXTENDED,
            Self::Bytea => pg_sys::F_HASHVARLENAEXTENDED,
            Self::Jsonb => pg_sys::F_JSONB_HASH_EXTENDED,
        };
        // SAFETY: a function of one value of that type and a seed.
        Ok(unsafe { call_2(function, collation, self.value(clear)?, seed) })
    }
}

/// # Safety
/// The arguments are what the function takes.
unsafe fn call_2(
    function: u32,
    collation: pg_sys::Oid,
    a: pg_sys::Datum,
    b: pg_sys::Datum,
) -> pg_sys::Datum {
    // SAFETY: the caller's promise.
    unsafe { pg_sys::OidFunctionCall2Coll(pg_sys::Oid::from(function), collation, a, b) }
}
