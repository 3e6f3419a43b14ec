//! `cmk_text(n)`: at most n characters, as varchar(n). The modifier is n and the length of a
//! value's header, as PostgreSQL has it for varchar.

use crate::pg::call::{Call, PgCString};
use crate::pg::raw::column_function;
use pgrx::pg_sys;

column_function!(column_text_modifier_in, |call| modifier_in(call));

fn modifier_in(call: Call) -> cmk_error::Result<pg_sys::Datum> {
    // SAFETY: varchar's own function, of the same argument; raises its ERRORs.
    Ok(unsafe {
        pg_sys::OidFunctionCall1Coll(
            pg_sys::Oid::from(pg_sys::F_VARCHARTYPMODIN),
            pg_sys::InvalidOid,
            call.datum(0),
        )
    })
}

column_function!(column_text_modifier_out, |call| {
    let modifier = call.datum(0).value() as i32;
    let text = match modifier > pg_sys::VARHDRSZ as i32 {
        true => format!("({})", modifier - pg_sys::VARHDRSZ as i32),
        false => String::new(),
    };
    Ok(PgCString::copy(&[text.as_bytes()])?.into_datum())
});
