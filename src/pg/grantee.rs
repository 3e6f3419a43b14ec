//! The type `cmk.grantee`: the role that a grant is to.
//!
//! PostgreSQL's `regrole` is a number that is shown as a name. It travels as a number in binary
//! replication, where it may be somebody else's, and a dump that names a role which the other
//! server lacks can't be loaded at all. This type holds both: the number decides here, so that a
//! grant follows ALTER ROLE RENAME and dies with DROP ROLE; the name is what dumps and replication
//! carry, in text and in binary. A name that no role has on arrival stands for nobody, for good: a
//! role that somebody creates later is not the one that was meant.

use super::raw::raw_function;
use cmk_error::{Reason, Result};
use pgrx::{IntoDatum, pg_sys};
use std::ffi::{CStr, CString};

const NAME_LEN: usize = pg_sys::NAMEDATALEN as usize;

/// As stored: 68 bytes, INTERNALLENGTH of the type.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Grantee {
    /// 0: nobody.
    oid: u32,
    /// Its name when the row was written, zero-terminated.
    name: [u8; NAME_LEN],
}

impl Grantee {
    /// Whoever has that name here and now, or nobody. What is too long for a name is nobody's, such
    /// as the name of a dropped role with what is added to it.
    pub fn named(name: &CStr) -> Self {
        let bytes = name.to_bytes();
        let mut stored = [0; NAME_LEN];
        let len = bytes.len().min(NAME_LEN - 1);
        stored[..len].copy_from_slice(&bytes[..len]);
        let oid = if len < bytes.len() { pg_sys::InvalidOid } else { role_named(name) };
        Self { oid: oid.to_u32(), name: stored }
    }

    pub fn oid(&self) -> pg_sys::Oid {
        pg_sys::Oid::from(self.oid)
    }

    /// The role's present name. Of a dropped one the name that it had when the row was written, and
    /// that it is no more: by now somebody else may have the name.
    pub fn name(&self) -> CString {
        name_of(self.oid()).unwrap_or_else(|| {
            let end = self.name.iter().position(|byte| *byte == 0).unwrap_or(NAME_LEN);
            let mut name = self.name[..end].to_vec();
            if self.oid != 0 {
                name.extend_from_slice(b" (dropped)");
            }
            CString::new(name).unwrap_or_default()
        })
    }

    /// Two grantees of one key are one.
    pub fn key(&self) -> String {
        match self.oid {
            0 => format!("name {}", self.name().to_string_lossy()),
            oid => format!("oid {oid}"),
        }
    }
}

/// The role of exactly this name; 0: there is none.
fn role_named(name: &CStr) -> pg_sys::Oid {
    // SAFETY: a C string; a catalog look-up in a transaction on the main thread.
    unsafe { pg_sys::get_role_oid(name.as_ptr(), true) }
}

/// `None` if there is no such role.
fn name_of(role: pg_sys::Oid) -> Option<CString> {
    if role == pg_sys::InvalidOid {
        return None;
    }
    // SAFETY: a catalog look-up in a transaction on the main thread; a C string in the current
    // memory context, or null.
    unsafe {
        let name = pg_sys::GetUserNameFromId(role, true);
        (!name.is_null()).then(|| CStr::from_ptr(name).to_owned())
    }
}

/// A role that an administrator names.
pub struct NamedRole {
    /// 0: there is none of that name.
    pub oid: pg_sys::Oid,
    pub name: String,
}

impl NamedRole {
    /// As people write it: first by exactly this name, then as an SQL identifier, quoted or folded
    /// to lower case. Never by number: `123` is the role of that name.
    pub fn written(text: &str) -> Self {
        // No role has a longer name, quotes and all; and the caller may pass a gigabyte.
        let text = if text.len() <= 2 * NAME_LEN { text } else { "" };
        let quoted = text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
        let identifier = match quoted {
            Some(inner) => inner.replace("\"\"", "\""),
            None => text.to_ascii_lowercase(),
        };
        let named = |name: &str| {
            let oid = CString::new(name).map_or(pg_sys::InvalidOid, |name| role_named(&name));
            (oid != pg_sys::InvalidOid).then(|| Self { oid, name: name.to_owned() })
        };
        let bare = if quoted.is_some() { identifier.clone() } else { text.to_owned() };
        let gone = || Self { oid: pg_sys::InvalidOid, name: bare };
        named(text).or_else(|| named(&identifier)).unwrap_or_else(gone)
    }

    /// By number, which PostgreSQL does not check.
    pub fn of(oid: pg_sys::Oid) -> Self {
        // A name that isn't UTF-8 would be shown as another one.
        let name = name_of(oid).and_then(|name| name.into_string().ok());
        Self { oid, name: name.unwrap_or_default() }
    }

    /// # Errors
    /// `unknown_role` if there is no such role.
    pub fn require(&self) -> Result<()> {
        let exists = self.oid != pg_sys::InvalidOid && !self.name.is_empty();
        if exists { Ok(()) } else { Err(Reason::UnknownRole.into()) }
    }
}

/// The grantee that a function got as its first argument.
///
/// # Safety
/// `fcinfo` is that of a call whose first argument is a non-null `cmk.grantee`.
unsafe fn argument(fcinfo: pg_sys::FunctionCallInfo) -> Grantee {
    // SAFETY: by the caller's promise a pointer to a value of the type.
    unsafe { first(fcinfo).cast_mut_ptr::<Grantee>().read_unaligned() }
}

/// # Safety
/// `fcinfo` is that of a call with at least one argument.
unsafe fn first(fcinfo: pg_sys::FunctionCallInfo) -> pg_sys::Datum {
    // SAFETY: the caller's promise; STRICT functions get no null.
    unsafe { pgrx::pg_getarg_datum(fcinfo, 0) }.unwrap_or(pg_sys::Datum::null())
}

/// A value of the type in the current memory context.
fn datum(grantee: Grantee) -> pg_sys::Datum {
    // SAFETY: palloc returns that many aligned bytes or raises an ERROR.
    unsafe {
        let copy = pg_sys::palloc0(size_of::<Grantee>()).cast::<Grantee>();
        copy.write(grantee);
        pg_sys::Datum::from(copy)
    }
}

raw_function!(grantee_in, |fcinfo| {
    // SAFETY: the argument is a C string.
    let name = unsafe { CStr::from_ptr(first(fcinfo).cast_mut_ptr()) };
    Ok(datum(Grantee::named(name)))
});

raw_function!(grantee_out, |fcinfo| {
    // SAFETY: the argument is a grantee; the name is copied before it goes.
    Ok(unsafe { pg_sys::Datum::from(pg_sys::pstrdup(argument(fcinfo).name().as_ptr())) })
});

raw_function!(grantee_recv, |fcinfo| {
    // SAFETY: the argument is the message buffer; the text is a zero-terminated copy in the
    // database encoding.
    let name = unsafe {
        let buffer = first(fcinfo).cast_mut_ptr::<pg_sys::StringInfoData>();
        let mut len = 0;
        let text = pg_sys::pq_getmsgtext(buffer, (*buffer).len - (*buffer).cursor, &mut len);
        CStr::from_ptr(text)
    };
    Ok(datum(Grantee::named(name)))
});

raw_function!(grantee_send, |fcinfo| {
    // SAFETY: the argument is a grantee; the buffer is made, filled and finished as PostgreSQL's
    // own functions do.
    unsafe {
        let name = argument(fcinfo).name();
        let mut buffer = pg_sys::StringInfoData::default();
        pg_sys::pq_begintypsend(&mut buffer);
        pg_sys::pq_sendtext(&mut buffer, name.as_ptr(), name.as_bytes().len() as i32);
        Ok(pg_sys::Datum::from(pg_sys::pq_endtypsend(&mut buffer)))
    }
});

raw_function!(grantee_oid, |fcinfo| {
    // SAFETY: the argument is a grantee.
    Ok(pg_sys::Datum::from(unsafe { argument(fcinfo) }.oid()))
});

raw_function!(grantee_key, |fcinfo| {
    // SAFETY: the argument is a grantee.
    let key = unsafe { argument(fcinfo) }.key();
    Ok(key.into_datum().unwrap_or(pg_sys::Datum::null()))
});
