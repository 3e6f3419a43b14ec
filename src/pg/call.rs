//! The call of a function that PostgreSQL calls with its own conventions, and values that it gets
//! and returns. The SQL declarations in `sql/columns/` say which type an argument has; what reads
//! it here relies on them.

use super::datum::{alloc, content, fill};
use cmk_error::{Reason, Result};
use pgrx::pg_sys;
use std::ffi::{CStr, c_char};
use std::ptr::NonNull;

/// Longest C string, without the zero behind it: PostgreSQL hands out no more memory at once.
pub const CSTRING_MAX: usize = 0x3fff_fffe;

/// A running call.
#[derive(Clone, Copy)]
pub struct Call(pg_sys::FunctionCallInfo);

impl Call {
    /// # Safety
    /// `fcinfo` is that of the running function, and outlives the result.
    pub unsafe fn new(fcinfo: pg_sys::FunctionCallInfo) -> Self {
        Self(fcinfo)
    }

    /// PostgreSQL's own form.
    pub fn raw(self) -> pg_sys::FunctionCallInfo {
        self.0
    }

    #[inline]
    fn argument(self, number: usize) -> pg_sys::NullableDatum {
        // SAFETY: the call's arguments, as many as the SQL declaration has.
        unsafe { *(*self.0).args.as_ptr().add(number) }
    }

    /// How many arguments there are.
    pub fn count(self) -> usize {
        // SAFETY: the running call.
        unsafe { (*self.0).nargs as usize }
    }

    #[inline]
    pub fn is_null(self, number: usize) -> bool {
        self.argument(number).isnull
    }

    #[inline]
    pub fn datum(self, number: usize) -> pg_sys::Datum {
        self.argument(number).value
    }

    /// The bytes of an argument that is a variable-length value, detoasted; none of null.
    #[inline]
    pub fn bytes<'a>(self, number: usize) -> &'a [u8] {
        if self.is_null(number) {
            return &[];
        }
        // SAFETY: declared as such a type; not null.
        unsafe { content(self.datum(number)) }
    }

    /// The same, of what may be null.
    #[inline]
    pub fn nullable_bytes<'a>(self, number: usize) -> Option<&'a [u8]> {
        (!self.is_null(number)).then(|| self.bytes(number))
    }

    /// An argument that is a C string.
    pub fn c_string<'a>(self, number: usize) -> &'a CStr {
        // SAFETY: declared as `cstring`; STRICT functions get no null.
        unsafe { CStr::from_ptr(self.datum(number).cast_mut_ptr()) }
    }

    /// The rest of a message, an argument declared as `internal`: of a receive function.
    pub fn message<'a>(self, number: usize) -> &'a [u8] {
        // SAFETY: PostgreSQL passes its message buffer, which holds `len` bytes.
        unsafe {
            let buffer = self.datum(number).cast_mut_ptr::<pg_sys::StringInfoData>();
            let rest = (*buffer).len - (*buffer).cursor;
            let start = (*buffer).data.add((*buffer).cursor as usize).cast::<u8>();
            (*buffer).cursor = (*buffer).len;
            std::slice::from_raw_parts(start, rest as usize)
        }
    }

    /// Whether the call stands in an SQL expression; else some function of PostgreSQL makes it.
    pub fn is_of_expression(self) -> bool {
        // SAFETY: the running call.
        unsafe { (*self.0).flinfo.as_ref().is_some_and(|info| !info.fn_expr.is_null()) }
    }

    /// The collation to compare by.
    #[inline]
    pub fn collation(self) -> pg_sys::Oid {
        // SAFETY: the running call.
        unsafe { (*self.0).fncollation }
    }

    /// Whether the call stands in the statement as a cast that nobody wrote.
    #[inline]
    pub fn is_implicit_cast(self) -> bool {
        // SAFETY: the running call; a node's type is looked at before it is used as that.
        unsafe {
            let Some(function) = (*self.0).flinfo.as_ref() else { return false };
            let Some(node) = function.fn_expr.cast::<pg_sys::FuncExpr>().as_ref() else {
                return false;
            };
            node.xpr.type_ == pg_sys::NodeTag::T_FuncExpr
                && node.funcformat == pg_sys::CoercionForm::COERCE_IMPLICIT_CAST
        }
    }

    /// Makes the result null.
    pub fn return_null(self) -> pg_sys::Datum {
        // SAFETY: the running call.
        unsafe { (*self.0).isnull = true };
        pg_sys::Datum::null()
    }
}

/// A C string under construction, in the current memory context.
pub struct PgCString {
    start: NonNull<u8>,
    len: usize,
}

impl PgCString {
    /// Room for `len` bytes, all zero, and the zero behind them.
    ///
    /// # Errors
    /// `too_large`, `out_of_memory`.
    pub fn with_len(len: usize) -> Result<Self> {
        if len > CSTRING_MAX {
            return Err(Reason::TooLarge.into());
        }
        // SAFETY: a size below MaxAllocSize; the memory is written before it is read.
        let start = unsafe {
            let memory = alloc(pg_sys::CurrentMemoryContext, len + 1);
            let start = memory.ok_or(Reason::OutOfMemory)?.cast::<u8>();
            start.as_ptr().write_bytes(0, len + 1);
            start
        };
        Ok(Self { start, len })
    }

    /// A copy.
    ///
    /// # Errors
    /// As [`PgCString::with_len`].
    pub fn copy(parts: &[&[u8]]) -> Result<Self> {
        let mut copy = Self::with_len(parts.iter().map(|part| part.len()).sum())?;
        fill(copy.as_mut_slice(), parts);
        Ok(copy)
    }

    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        // SAFETY: `len` initialised bytes, owned by self.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }

    /// The content.
    pub fn as_slice(&self) -> &[u8] {
        // SAFETY: as above.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }

    /// As PostgreSQL's functions take it.
    pub fn as_ptr(&self) -> *mut c_char {
        self.start.as_ptr().cast()
    }

    /// As a result of type `cstring`.
    pub fn into_datum(self) -> pg_sys::Datum {
        pg_sys::Datum::from(self.start.as_ptr())
    }
}
