//! Arrays of values of variable length.

use super::datum::content;
use cmk_error::{Reason, Result};
use pgrx::pg_sys;
use std::ffi::c_char;

const ALIGNMENT: c_char = pg_sys::TYPALIGN_INT as c_char;

/// The elements of an array; `None` for null.
///
/// # Errors
/// `out_of_memory`.
pub fn elements<'a>(array: pg_sys::Datum) -> Result<Vec<Option<&'a [u8]>>> {
    let (mut values, mut nulls, mut count) = (std::ptr::null_mut(), std::ptr::null_mut(), 0);
    // SAFETY: an array of such a type, as the function is declared; what is detoasted lies in the
    // current memory context. PostgreSQL returns as many elements as it says.
    unsafe {
        let array = pg_sys::pg_detoast_datum(array.cast_mut_ptr()).cast::<pg_sys::ArrayType>();
        let of = (*array).elemtype;
        pg_sys::deconstruct_array(
            array,
            of,
            -1,
            false,
            ALIGNMENT,
            &mut values,
            &mut nulls,
            &mut count,
        );
        let at = |i: usize| (!*nulls.add(i)).then(|| content(*values.add(i)));
        let mut elements = Vec::new();
        elements.try_reserve_exact(count as usize).map_err(|_| Reason::OutOfMemory)?;
        elements.extend((0..count as usize).map(at));
        Ok(elements)
    }
}

/// An array of a type of variable length.
pub fn make(values: &mut [pg_sys::Datum], of: pg_sys::Oid) -> pg_sys::Datum {
    // SAFETY: values of that type; copied into the current memory context.
    unsafe {
        let count = values.len() as i32;
        pg_sys::construct_array(values.as_mut_ptr(), count, of, -1, false, ALIGNMENT).into()
    }
}
