//! Arguments that are read where they lie, and results that are written in place: for an ordinary
//! value one allocation, in PostgreSQL's memory, and no call that could raise an ERROR (pgrx sets
//! up a jump target around each of those, which costs as much as a third of the cipher).

use cmk_error::{Error, Reason, Result};
use pgrx::callconv::{Arg, ArgAbi, BoxRet, FcInfo};
use pgrx::datum::{Datum, FromDatum};
use pgrx::pg_sys;
use pgrx::pgrx_sql_entity_graph::metadata::{
    ArgumentError, ReturnsError, ReturnsRef, SqlMappingRef, SqlTranslatable, TypeOrigin,
};
use std::ptr::NonNull;
use zeroize::Zeroize;

/// Longest variable-length value, its 4-byte header included (PostgreSQL's `MaxAllocSize`).
const VARLENA_MAX: usize = 0x3fff_ffff;

unsafe extern "C" {
    // Bound again without pgrx's jump target.
    fn MemoryContextAllocExtended(
        context: pg_sys::MemoryContext,
        size: usize,
        flags: i32,
    ) -> *mut std::ffi::c_void;
}

/// Memory of undefined content, or `None` where there is none left. Raises no ERROR.
///
/// # Safety
/// A live memory context, on the main thread; `size` is below `MaxAllocSize`.
#[inline]
pub unsafe fn alloc(
    context: pg_sys::MemoryContext,
    size: usize,
) -> Option<NonNull<std::ffi::c_void>> {
    // SAFETY: the caller's promise. With this flag the allocator returns null instead of raising an
    // ERROR.
    NonNull::new(unsafe {
        MemoryContextAllocExtended(context, size, pg_sys::MCXT_ALLOC_NO_OOM as i32)
    })
}

/// Writes parts into room of their length, one behind the other.
pub fn fill(mut room: &mut [u8], parts: &[&[u8]]) {
    for part in parts {
        let (head, tail) = std::mem::take(&mut room).split_at_mut(part.len());
        head.copy_from_slice(part);
        room = tail;
    }
}

/// Whether bytes are what PostgreSQL's `text` can hold: UTF-8 without a zero byte.
pub fn is_text(bytes: &[u8]) -> bool {
    !bytes.contains(&0) && std::str::from_utf8(bytes).is_ok()
}

/// The bytes of a `bytea` argument.
pub struct ByteaArg<'a>(pub &'a [u8]);

/// The bytes of a `text` argument: UTF-8, because that is the database's encoding.
#[derive(Clone, Copy)]
pub struct TextArg<'a>(pub &'a [u8]);

/// The content of a varlena: in place if it is, else detoasted.
///
/// # Safety
/// `datum` is a non-null varlena that lives for `'a`.
#[inline]
pub unsafe fn content<'a>(datum: pg_sys::Datum) -> &'a [u8] {
    let varlena = datum.cast_mut_ptr::<pg_sys::varlena>();
    // SAFETY: by the caller's promise; both branches end with a plain varlena, short or long
    // header.
    unsafe {
        let elsewhere = pgrx::varatt_is_1b_e(varlena) || pgrx::varatt_is_4b_c(varlena);
        let plain = if elsewhere { pg_sys::pg_detoast_datum_packed(varlena) } else { varlena };
        pgrx::varlena_to_byte_slice(plain)
    }
}

/// Bytes that a varlena takes as it is stored, its header included.
pub fn varlena_size(datum: pg_sys::Datum) -> usize {
    // SAFETY: a non-null varlena, as everybody calls it with; nothing is detoasted.
    unsafe { pgrx::varsize_any(datum.cast_mut_ptr::<pg_sys::varlena>()) }
}

/// Whether two varlenas are stored as the same bytes: then they are the same value. Nothing is
/// detoasted; of what is stored out of line, the place is compared.
#[inline]
pub fn is_stored_alike(a: pg_sys::Datum, b: pg_sys::Datum) -> bool {
    // SAFETY: non-null varlenas, as everybody calls it with, of the lengths that they say.
    let [a, b] = [a, b].map(|datum| unsafe {
        let start = datum.cast_mut_ptr::<u8>();
        std::slice::from_raw_parts(start, pgrx::varsize_any(start.cast()))
    });
    a == b
}

/// The first bytes of a varlena, at least `len` of them if it has as many. What is stored out of
/// line is fetched that far.
#[inline]
pub fn head<'a>(datum: pg_sys::Datum, len: usize) -> &'a [u8] {
    let varlena = datum.cast_mut_ptr::<pg_sys::varlena>();
    // SAFETY: a non-null varlena, as everybody calls it with; both branches end with a plain one.
    unsafe {
        let elsewhere = pgrx::varatt_is_1b_e(varlena) || pgrx::varatt_is_4b_c(varlena);
        let plain = match elsewhere {
            true => pg_sys::pg_detoast_datum_slice(varlena, 0, len as i32),
            false => varlena,
        };
        pgrx::varlena_to_byte_slice(plain)
    }
}

macro_rules! argument {
    ($rust:ident) => {
        impl FromDatum for $rust<'_> {
            #[inline]
            unsafe fn from_polymorphic_datum(
                datum: pg_sys::Datum,
                is_null: bool,
                _type: pg_sys::Oid,
            ) -> Option<Self> {
                // SAFETY: a non-null datum of the type that sql_type! names; lives as long as the
                // call.
                (!is_null).then(|| Self(unsafe { content(datum) }))
            }
        }

        // SAFETY: by way of from_polymorphic_datum.
        unsafe impl<'fcx> ArgAbi<'fcx> for $rust<'fcx> {
            #[inline]
            unsafe fn unbox_arg_unchecked(arg: Arg<'_, 'fcx>) -> Self {
                // SAFETY: the caller knows the argument isn't null; Option<_> asks before.
                unsafe { arg.unbox_arg_using_from_datum().unwrap_unchecked() }
            }
        }
    };
}

argument!(ByteaArg);
argument!(TextArg);

/// A `bytea` under construction.
pub struct Bytea {
    varlena: NonNull<pg_sys::varlena>,
    len: usize,
}

/// A `text` under construction.
pub struct Text(Bytea);

impl Bytea {
    /// Room for `len` bytes in the current memory context. What it holds is whatever was there:
    /// all of it is to be written before any of it is read, or returned.
    ///
    /// # Errors
    /// `too_large` before anything is allocated.
    #[inline]
    pub fn with_len(len: usize) -> Result<Self> {
        let size = len.saturating_add(pg_sys::VARHDRSZ);
        if size > VARLENA_MAX {
            return Err(Reason::TooLarge.into());
        }
        // SAFETY: with this flag and a size below MaxAllocSize the allocator raises no ERROR. It
        // returns `size` aligned bytes or null; header and content lie within.
        let varlena = unsafe {
            let memory = alloc(pg_sys::CurrentMemoryContext, size);
            let varlena = memory.ok_or(Reason::OutOfMemory)?.cast();
            pgrx::set_varsize_4b(varlena.as_ptr(), size as i32);
            // Zeroing it would cost a value of a mebibyte a fifth of its time. That bytes which
            // nobody wrote must not be referred to is a rule about memory that the compiler knows
            // is fresh; this comes from a function that it can't look into.
            varlena
        };
        Ok(Self { varlena, len })
    }

    #[inline]
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        // SAFETY: `len` bytes follow the header, allocated by with_len and owned by self.
        unsafe {
            let data = self.varlena.as_ptr().cast::<u8>().add(pg_sys::VARHDRSZ);
            std::slice::from_raw_parts_mut(data, self.len)
        }
    }

    /// Gives the memory back, zeroed, before its context goes.
    pub fn free(mut self) {
        self.as_mut_slice().zeroize();
        // SAFETY: allocated by with_len, and owned by self.
        unsafe { pg_sys::pfree(self.varlena.as_ptr().cast()) };
    }

    /// As a result of whatever type has such values.
    #[inline]
    pub fn into_datum(self) -> pg_sys::Datum {
        pg_sys::Datum::from(self.varlena.as_ptr())
    }

    /// The content.
    #[inline]
    pub fn as_slice(&self) -> &[u8] {
        // SAFETY: as in as_mut_slice.
        unsafe {
            let data = self.varlena.as_ptr().cast::<u8>().add(pg_sys::VARHDRSZ);
            std::slice::from_raw_parts(data, self.len)
        }
    }

    /// A copy of some bytes, one part behind the other.
    ///
    /// # Errors
    /// As [`Bytea::with_len`].
    pub fn copy(parts: &[&[u8]]) -> Result<Self> {
        let mut copy = Self::with_len(parts.iter().map(|part| part.len()).sum())?;
        fill(copy.as_mut_slice(), parts);
        Ok(copy)
    }

    /// The same bytes as `text`.
    ///
    /// # Errors
    /// `not_text` for what isn't UTF-8 or holds a zero byte, which PostgreSQL's `text` can't.
    pub fn into_text(self) -> Result<Text> {
        if is_text(self.as_slice()) { Ok(Text(self)) } else { Err(Reason::NotText.into()) }
    }
}

impl Text {
    /// As a result of type `text`.
    #[inline]
    pub fn into_datum(self) -> pg_sys::Datum {
        self.0.into_datum()
    }
}

// SAFETY: the datum is a pointer to a varlena in the memory context of the call.
unsafe impl BoxRet for Bytea {
    #[inline]
    unsafe fn box_into<'fcx>(self, fcinfo: &mut FcInfo<'fcx>) -> Datum<'fcx> {
        // SAFETY: a valid datum of the function's declared type.
        unsafe { fcinfo.return_raw_datum(pg_sys::Datum::from(self.varlena.as_ptr())) }
    }
}

// SAFETY: as for Bytea; the content was checked to be text.
unsafe impl BoxRet for Text {
    #[inline]
    unsafe fn box_into<'fcx>(self, fcinfo: &mut FcInfo<'fcx>) -> Datum<'fcx> {
        // SAFETY: passes the caller's promise on.
        unsafe { self.0.box_into(fcinfo) }
    }
}

macro_rules! sql_type {
    ($rust:ty, $sql:literal) => {
        // SAFETY: names the SQL type that box_into produces.
        unsafe impl SqlTranslatable for $rust {
            const TYPE_IDENT: &'static str = pgrx::pgrx_resolved_type!($rust);
            const TYPE_ORIGIN: TypeOrigin = TypeOrigin::External;
            const ARGUMENT_SQL: Result<SqlMappingRef, ArgumentError> =
                Ok(SqlMappingRef::literal($sql));
            const RETURN_SQL: Result<ReturnsRef, ReturnsError> =
                Ok(ReturnsRef::One(SqlMappingRef::literal($sql)));
        }
    };
}

sql_type!(Bytea, "bytea");
sql_type!(Text, "text");
sql_type!(ByteaArg<'_>, "bytea");
sql_type!(TextArg<'_>, "text");

/// An argument that must be there. Functions take it as an `Option` because a STRICT one would do
/// nothing for NULL, and say nothing.
///
/// # Errors
/// `null_argument`, with its name.
#[inline]
pub fn required<T>(argument: Option<T>, name: &'static str) -> Result<T> {
    argument.ok_or_else(|| missing(name))
}

#[cold]
fn missing(name: &str) -> Error {
    Error::new(Reason::NullArgument).with_info(format!("argument={name}"))
}

/// A `regrole` argument: a role by name, or by number, which PostgreSQL does not check.
#[derive(Clone, Copy)]
pub struct RegRole(pub pg_sys::Oid);

sql_type!(RegRole, "pg_catalog.regrole");

// SAFETY: regrole is an oid in all but its text form.
unsafe impl<'fcx> ArgAbi<'fcx> for RegRole {
    unsafe fn unbox_arg_unchecked(arg: Arg<'_, 'fcx>) -> Self {
        // SAFETY: passes the caller's promise on.
        Self(unsafe { pg_sys::Oid::unbox_arg_unchecked(arg) })
    }
}

/// Any `jsonb` argument, as JSON text. pgrx's own panics for what Rust's parser refuses: numbers
/// beyond a double's range, and deep nesting.
pub struct AnyJsonb(String);

impl AnyJsonb {
    /// What it says; `None` if Rust's parser refuses it.
    pub fn parse(&self) -> Option<serde_json::Value> {
        serde_json::from_str(&self.0).ok()
    }
}

sql_type!(AnyJsonb, "pg_catalog.jsonb");

impl FromDatum for AnyJsonb {
    unsafe fn from_polymorphic_datum(
        datum: pg_sys::Datum,
        is_null: bool,
        _type: pg_sys::Oid,
    ) -> Option<Self> {
        // SAFETY: a non-null jsonb.
        (!is_null).then(|| Self(unsafe { json_text(datum) }))
    }
}

// SAFETY: by way of from_polymorphic_datum.
unsafe impl<'fcx> ArgAbi<'fcx> for AnyJsonb {
    unsafe fn unbox_arg_unchecked(arg: Arg<'_, 'fcx>) -> Self {
        // SAFETY: the caller knows the argument isn't null; Option<_> asks before.
        unsafe { arg.unbox_arg_using_from_datum().unwrap_unchecked() }
    }
}

/// # Safety
/// `datum` is a non-null `jsonb`.
unsafe fn json_text(datum: pg_sys::Datum) -> String {
    // SAFETY: the caller's promise; its output is a C string in the current memory context.
    unsafe {
        let text = pg_sys::OidOutputFunctionCall(pg_sys::Oid::from(pg_sys::F_JSONB_OUT), datum);
        std::ffi::CStr::from_ptr(text).to_string_lossy().into_owned()
    }
}

/// A `jsonb` argument of options, as JSON text; `None` if it is larger than any options are.
pub struct JsonbArg(Option<String>);

/// In bytes, as `jsonb` stores them.
const JSONB_MAX: usize = 64 * 1024;

impl JsonbArg {
    /// JSON, as `jsonb` prints it.
    ///
    /// # Errors
    /// `key_options` if it is too large.
    pub fn text(&self) -> Result<&str> {
        let too_large = || Error::new(Reason::KeyOptions).with_info("cause=size");
        self.0.as_deref().ok_or_else(too_large)
    }
}

sql_type!(JsonbArg, "pg_catalog.jsonb");

impl FromDatum for JsonbArg {
    unsafe fn from_polymorphic_datum(
        datum: pg_sys::Datum,
        is_null: bool,
        _type: pg_sys::Oid,
    ) -> Option<Self> {
        // SAFETY: a non-null jsonb. The size is looked at before: the caller may pass a gigabyte.
        let print = || unsafe {
            (pg_sys::toast_raw_datum_size(datum) <= JSONB_MAX).then(|| json_text(datum))
        };
        (!is_null).then(|| Self(print()))
    }
}

// SAFETY: by way of from_polymorphic_datum.
unsafe impl<'fcx> ArgAbi<'fcx> for JsonbArg {
    unsafe fn unbox_arg_unchecked(arg: Arg<'_, 'fcx>) -> Self {
        // SAFETY: the caller knows the argument isn't null; Option<_> asks before.
        unsafe { arg.unbox_arg_using_from_datum().unwrap_unchecked() }
    }
}
