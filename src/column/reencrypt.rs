//! Values under their tenant's newest data key: which are not, and how they get there. The
//! functions that `cmk.reencrypt` is made of (`sql/reencrypt/`).
//!
//! The plaintext stays inside one call. It is in the memory of that call only, and zeroed before
//! the call ends.

use super::check::header_of;
use super::newest::is_newest;
use super::{seal_value, tenants};
use crate::pg::call::Call;
use crate::pg::datum::{Bytea, head, required};
use crate::pg::error_context;
use crate::pg::identity::{current_role, in_security_restricted_operation};
use crate::pg::process::{ThisProcess, keyring};
use crate::pg::raw::column_function;
use crate::pg::registry::read;
use cmk_crypto::commitment::DekId;
use cmk_envelope::column::{HEADER_MAX, header};
use cmk_envelope::{Envelope, OVERHEAD};
use cmk_error::{Error, Reason, Result};
use cmk_keyring::tenant::{DataKeyState, read_tenant_name};
use pgrx::pg_sys;

/// The data key of an envelope of any suite, from at least the first [`HEADER_MAX`] bytes of it.
pub fn data_key_of(bytes: &[u8]) -> Option<DekId> {
    match header(bytes) {
        Some(header) => Some(header.dek_id),
        None => Envelope::parse(bytes).ok().map(|envelope| envelope.dek_id()),
    }
}

// `cmk_internal.data_key_id(value)`: the id of the data key in an envelope; null of anything else.
column_function!(column_data_key_id, |call| {
    match data_key_of(head(call.datum(0), HEADER_MAX)) {
        Some(id) => Ok(Bytea::copy(&[&id.0])?.into_datum()),
        None => Ok(call.return_null()),
    }
});

// `cmk_internal.is_outdated(value)` of a protected column: sealed under a data key that isn't the
// newest of its tenant.
column_function!(column_is_outdated, |call| {
    let is_outdated = header_of(call.datum(0)).map_or(Ok(false), |it| Ok(!is_newest(&it.dek_id)?));
    is_outdated.map(pg_sys::Datum::from)
});

// The same of a bytea, where anything but an envelope of cmk_encrypt() is outdated, too.
column_function!(envelope_is_outdated, |call| {
    let is_outdated = match Envelope::parse(head(call.datum(0), HEADER_MAX)) {
        Ok(envelope) => !is_newest(&envelope.dek_id())?,
        Err(_) => true,
    };
    Ok(pg_sys::Datum::from(is_outdated))
});

/// The tenant of an envelope whose caller named none.
fn named_tenant(call: Call, envelope: &Envelope<'_>) -> Result<std::rc::Rc<str>> {
    match call.count() {
        3 => {
            let name = required(call.nullable_bytes(2), "tenant")?;
            Ok(read_tenant_name(name)?.into())
        }
        _ => tenants::of(&envelope.dek_id()),
    }
}

/// `(value bytea, aad bytea [, tenant text])`; without a tenant it is the data key's.
fn renewed_envelope(call: Call) -> Result<Bytea> {
    let renewed = renew_envelope(call);
    if call.count() == 3 { renewed } else { renewed.map_err(unnamed) }
}

fn renew_envelope(call: Call) -> Result<Bytea> {
    let aad = required(call.nullable_bytes(1), "aad")?;
    let envelope = Envelope::parse(call.bytes(0))?;
    let tenant = named_tenant(call, &envelope)?;
    let named = |error: Error| error.for_tenant(&tenant);
    if in_security_restricted_operation() {
        return Err(named(Reason::SecurityRestricted.into()));
    }
    let process = ThisProcess::of(call);
    // Both before a key is asked for: nothing may fail in between.
    let mut clear = Bytea::with_len(envelope.plaintext_len()).map_err(named)?;
    let mut sealed = Bytea::with_len(envelope.plaintext_len() + OVERHEAD).map_err(named)?;
    let opened = keyring().open(&process, &tenant, aad, &envelope, clear.as_mut_slice());
    let done = opened.and_then(|()| {
        keyring().seal(&process, &tenant, aad, clear.as_slice(), sealed.as_mut_slice())
    });
    clear.free();
    done.map(|()| sealed)
}

/// What is done with a value: nothing with null. No context of an error shows it.
fn of_value(call: Call, work: impl FnOnce() -> Result<pg_sys::Datum>) -> Result<pg_sys::Datum> {
    if call.is_null(0) {
        return Ok(call.return_null());
    }
    error_context::hidden(work)
}

// `cmk_internal.renewed(value, aad [, tenant])`, for bytea.
column_function!(envelope_renewed, |call| of_value(call, || {
    renewed_envelope(call).map(Bytea::into_datum)
}));

// `cmk_internal.renewed(value, label, options)`, for protected columns.
column_function!(column_renewed, |call| of_value(call, || {
    seal_value::renewed(call).map_err(unnamed)
}));

/// Of what kind a failure is that keeps one value from being renewed.
enum Kind {
    /// The value's own: others of its tenant go on.
    Value,
    /// Its tenant's, whose other values need not be tried.
    Tenant,
    /// Neither: the statement fails.
    Statement,
}

fn kind_of(reason: Reason) -> Kind {
    use Reason::*;
    match reason {
        _ if reason.concerns_one_value() => Kind::Value,
        NullArgument | TenantName | UnknownTenant | ForeignEnvelope | NotSealed | TooLarge => {
            Kind::Value
        }
        OutOfMemory | NotInstalled | RegistryUnusable | RegistryCopied | SystemRandom
        | SecurityRestricted | LoadedTooLate | SettingsOverridden => Kind::Statement,
        _ => Kind::Tenant,
    }
}

/// An error about a tenant that the caller did not name: without the name, for whoever holds no
/// grant for it. Who sees an envelope is not to learn from it whose it is.
fn unnamed(error: Error) -> Error {
    let has_grant = |tenant| read::has_grant(current_role(), tenant).unwrap_or(false);
    match error.tenant() {
        Some(tenant) if !has_grant(tenant) => Error::new(error.reason),
        _ => error,
    }
}

/// Null if it works. Else the reason and, where that is about the tenant, the tenant's name in a
/// line of its own.
fn problem(call: Call, tried: Result<()>) -> Result<pg_sys::Datum> {
    let Err(error) = tried else { return Ok(call.return_null()) };
    let reason = error.reason.name().as_bytes();
    match (kind_of(error.reason), error.tenant()) {
        (Kind::Statement, _) => Err(error),
        (Kind::Tenant, Some(tenant)) => {
            Ok(Bytea::copy(&[reason, b"\n", tenant.as_bytes()])?.into_datum())
        }
        _ => Ok(Bytea::copy(&[reason])?.into_datum()),
    }
}

// `cmk_internal.renewal_problem(…)`, with the arguments of `renewed`: why it would fail. Asks for
// what it takes, so that what works here works there.
column_function!(envelope_renewal_problem, |call| of_value(call, || {
    let tried = renewed_envelope(call).map(Bytea::free);
    problem(call, tried)
}));
column_function!(column_renewal_problem, |call| of_value(call, || {
    let tried = seal_value::renewed(call).map(|_| ()).map_err(unnamed);
    problem(call, tried)
}));

/// Whose data key it is, if the caller holds a grant for that tenant.
fn granted_tenant(call: Call) -> Result<Option<(DekId, std::rc::Rc<str>)>> {
    let Ok(id) = <[u8; 16]>::try_from(call.bytes(0)) else { return Ok(None) };
    let tenant = match tenants::of(&DekId(id)) {
        Err(error) if error.reason == Reason::UnknownDataKey => return Ok(None),
        tenant => tenant?,
    };
    let has_grant = read::has_grant(current_role(), &tenant)?;
    Ok(has_grant.then_some((DekId(id), tenant)))
}

// `cmk_internal.tenant_of(data_key_id)`: to whom holds a grant for that tenant; null to others.
column_function!(data_key_tenant, |call| match granted_tenant(call)? {
    Some((_, tenant)) => Ok(Bytea::copy(&[tenant.as_bytes()])?.into_datum()),
    None => Ok(call.return_null()),
});

// `cmk_internal.data_key_facts(data_key_id)`: version, state and tenant in lines of their own, to
// the same.
column_function!(data_key_facts, |call| {
    let Some((id, name)) = granted_tenant(call)? else { return Ok(call.return_null()) };
    let tenant = read::require_tenant(&name)?;
    let key = tenant.any_key(id)?;
    let version = key.version.to_string();
    let state = match key.state {
        DataKeyState::Current => "current",
        DataKeyState::Next => "next",
        DataKeyState::Retired => "retired",
        DataKeyState::Destroyed => "destroyed",
    };
    let parts = [version.as_str(), "\n", state, "\n", &name].map(str::as_bytes);
    Ok(Bytea::copy(&parts)?.into_datum())
});
