//! Seals one value for a tenant: for the trigger, and for `cmk.seal_value` and `cmk.reseal`.

use super::check::{header_of, of_column};
use super::input::refuse_envelope;
use super::kind::Kind;
use super::open::clear;
use super::options::Search;
use super::{recent, stats, tags, tenants, token};
use crate::pg::call::{CSTRING_MAX, Call};
use crate::pg::datum::Bytea;
use crate::pg::error_context;
use crate::pg::process::{ThisProcess, keyring};
use crate::pg::raw::column_function;
use cmk_envelope::armor;
use cmk_envelope::column::{ColumnBinding, ColumnTag, TenantTag, overhead};
use cmk_error::{Error, Reason, Result};
use cmk_keyring::tenant::read_tenant_name;
use pgrx::pg_sys;

/// The tenant that a value is to be sealed for.
pub struct Tenant<'a> {
    pub name: &'a str,
    pub tag: TenantTag,
}

impl<'a> Tenant<'a> {
    /// # Errors
    /// `tenant_name`.
    #[inline]
    pub fn named(name: &'a [u8]) -> Result<Self> {
        Ok(Self { name: read_tenant_name(name)?, tag: tags::of_tenant(name) })
    }

    /// A sealed value of a column.
    ///
    /// # Errors
    /// `too_large`, `out_of_memory`; as [`Keyring::seal_column`] and [`token::to_seal`].
    ///
    /// [`Keyring::seal_column`]: cmk_keyring::keyring::Keyring::seal_column
    pub fn seal(
        &self,
        call: Call,
        column: ColumnTag,
        search: Option<&Search>,
        clear: &[u8],
    ) -> Result<pg_sys::Datum> {
        let named = |error: Error| error.for_tenant(self.name);
        let process = ThisProcess::of(call);
        let tokens = |search| token::to_seal(&process, self.name, column, search, clear);
        let tokens = search.map(tokens).transpose()?;
        let len = clear.len() + overhead(tokens.as_ref());
        // What can't be printed couldn't be dumped.
        if armor::encoded_len(len) > CSTRING_MAX {
            return Err(named(Reason::TooLarge.into()));
        }
        let mut sealed = Bytea::with_len(len).map_err(named)?;
        let (tenant, tenant_tag) = (self.name.as_bytes(), self.tag);
        let binding = ColumnBinding { tenant, tenant_tag, column, tokens };
        let out = sealed.as_mut_slice();
        keyring().seal_column(&process, self.name, &binding, clear, out)?;
        stats::sealed();
        recent::add(sealed.as_slice());
        Ok(sealed.into_datum())
    }
}

// `cmk.seal_value(value, tenant, label, options)`: what ALTER TABLE ... USING calls.
fn seal_value(kind: Kind, call: Call) -> Result<pg_sys::Datum> {
    if call.is_null(0) {
        return Ok(call.return_null());
    }
    let label = call.nullable_bytes(2).ok_or(Reason::NullArgument)?;
    let label = std::str::from_utf8(label).map_err(|_| Reason::NotText)?;
    let Some(name) = call.nullable_bytes(1) else {
        return Err(of_column(Reason::TenantNull, label));
    };
    let tenant = Tenant::named(name)?;
    let plain = kind.conceal(call.datum(0))?;
    let clear = match kind {
        Kind::Text => plain.as_slice(),
        Kind::Bytea | Kind::Jsonb => &plain.as_slice()[1..],
    };
    let search = Search::parse(call.nullable_bytes(3))?;
    let sealed = tenant.seal(call, tags::of_column(label.as_bytes()), search.as_ref(), clear)?;
    refuse_envelope(clear).map_err(|error| error.for_tenant(tenant.name))?;
    Ok(sealed)
}
column_function!(column_text_seal_value, |call| seal_value(Kind::Text, call));
column_function!(column_bytea_seal_value, |call| seal_value(Kind::Bytea, call));
column_function!(column_jsonb_seal_value, |call| seal_value(Kind::Jsonb, call));

// `cmk.reseal(value, label, options)`: see [`renewed`].
column_function!(column_reseal, |call| error_context::hidden(|| match call.is_null(0) {
    true => Ok(call.return_null()),
    false => renewed(call),
}));

/// `(value, label text, options text)`: the value of a protected column, for the tenant that it
/// has, with the tokens that it should have.
pub fn renewed(call: Call) -> Result<pg_sys::Datum> {
    let label = call.bytes(1);
    let search = Search::parse(call.nullable_bytes(2))?;
    let Some(header) = header_of(call.datum(0)) else { return Err(Reason::NotSealed.into()) };
    if header.column != tags::of_column(label) {
        return Err(Reason::ForeignEnvelope.into());
    }
    let tenant = tenants::of(&header.dek_id)?;
    let clear = clear(&ThisProcess::of(call), call.bytes(0))?;
    let sealed = Tenant::named(tenant.as_bytes())?.seal(
        call,
        header.column,
        search.as_ref(),
        clear.as_slice(),
    );
    clear.free();
    sealed
}
