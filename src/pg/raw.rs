//! Functions that PostgreSQL calls with its own conventions: triggers, event triggers, a type's
//! input and output. Their SQL declarations are written by hand, in `sql/`.

/// Exports a C function, version 1: the body is a closure from the call's `fcinfo` to
/// `Result<Datum>`; an error is raised.
macro_rules! raw_function {
    ($name:ident, $body:expr) => {
        #[pgrx::pg_guard]
        #[unsafe(no_mangle)]
        pub extern "C-unwind" fn $name(
            fcinfo: pgrx::pg_sys::FunctionCallInfo,
        ) -> pgrx::pg_sys::Datum {
            use crate::pg::report::IntoSql;
            type Body =
                fn(pgrx::pg_sys::FunctionCallInfo) -> cmk_error::Result<pgrx::pg_sys::Datum>;
            const BODY: Body = $body;
            BODY(fcinfo).or_raise()
        }

        const _: () = {
            #[unsafe(export_name = concat!("pg_finfo_", stringify!($name)))]
            extern "C" fn finfo() -> &'static pgrx::pg_sys::Pg_finfo_record {
                const V1: pgrx::pg_sys::Pg_finfo_record =
                    pgrx::pg_sys::Pg_finfo_record { api_version: 1 };
                &V1
            }
        };
    };
}

/// The same, with a closure from the [`Call`](crate::pg::call::Call). Errors are reported without
/// what PostgreSQL would add of the statement: it may be a plaintext.
macro_rules! column_function {
    ($name:ident, $body:expr) => {
        crate::pg::raw::raw_function!($name, |fcinfo| {
            type Body = fn(crate::pg::call::Call) -> cmk_error::Result<pgrx::pg_sys::Datum>;
            const BODY: Body = $body;
            // SAFETY: the call of the function that we are in.
            let done = BODY(unsafe { crate::pg::call::Call::new(fcinfo) });
            if done.is_err() {
                crate::pg::error_context::hide();
            }
            done
        });
    };
}

pub(crate) use {column_function, raw_function};
