//! `cmk_encrypt`, `cmk_decrypt` and their kin. `sql/applications.sql` declares them, each for
//! several types.
//!
//! Not STRICT, unlike what one would expect: a STRICT function returns NULL for a NULL tenant, so
//! an unset `current_setting('app.tenant', true)` would silently store nothing. Only the value may
//! be NULL.
//!
//! They raise errors instead of returning them: pgrx would move the room for a large one with each
//! result.

use crate::column::already_sealed;
use crate::pg::datum::{Bytea, ByteaArg, Text, TextArg, required};
use crate::pg::identity::in_security_restricted_operation;
use crate::pg::process::{ThisProcess, keyring};
use crate::pg::report::IntoSql;
use crate::pg::statistics;
use cmk_envelope::{Envelope, OVERHEAD};
use cmk_error::{Error, Reason, Result};
use cmk_keyring::tenant::read_tenant_name;
use pgrx::{Array, pg_extern, pg_sys};

#[pg_extern(sql = false)]
fn cmk_encrypt(
    tenant: Option<TextArg<'_>>,
    plaintext: Option<ByteaArg<'_>>,
    aad: Option<ByteaArg<'_>>,
    call: pg_sys::FunctionCallInfo,
) -> Option<Bytea> {
    let plaintext = plaintext?;
    seal::<ONCE>(tenant, plaintext.0, aad, call).map(Some).or_raise()
}

#[pg_extern(sql = false)]
fn cmk_encrypt_text(
    tenant: Option<TextArg<'_>>,
    plaintext: Option<TextArg<'_>>,
    aad: Option<ByteaArg<'_>>,
    call: pg_sys::FunctionCallInfo,
) -> Option<Bytea> {
    let plaintext = plaintext?;
    seal::<ONCE>(tenant, plaintext.0, aad, call).map(Some).or_raise()
}

#[pg_extern(sql = false)]
fn cmk_encrypt_nested(
    tenant: Option<TextArg<'_>>,
    plaintext: Option<ByteaArg<'_>>,
    aad: Option<ByteaArg<'_>>,
    call: pg_sys::FunctionCallInfo,
) -> Option<Bytea> {
    let plaintext = plaintext?;
    seal::<NESTED>(tenant, plaintext.0, aad, call).map(Some).or_raise()
}

#[pg_extern(sql = false)]
fn cmk_encrypt_nested_text(
    tenant: Option<TextArg<'_>>,
    plaintext: Option<TextArg<'_>>,
    aad: Option<ByteaArg<'_>>,
    call: pg_sys::FunctionCallInfo,
) -> Option<Bytea> {
    let plaintext = plaintext?;
    seal::<NESTED>(tenant, plaintext.0, aad, call).map(Some).or_raise()
}

#[pg_extern(sql = false)]
fn cmk_decrypt(
    tenant: Option<TextArg<'_>>,
    ciphertext: Option<ByteaArg<'_>>,
    aad: Option<ByteaArg<'_>>,
    call: pg_sys::FunctionCallInfo,
) -> Option<Bytea> {
    let ciphertext = ciphertext?;
    open(tenant, ciphertext.0, aad, call).map(Some).or_else(unless_collected).or_raise()
}

#[pg_extern(sql = false)]
fn cmk_decrypt_text(
    tenant: Option<TextArg<'_>>,
    ciphertext: Option<ByteaArg<'_>>,
    aad: Option<ByteaArg<'_>>,
    call: pg_sys::FunctionCallInfo,
) -> Option<Text> {
    let ciphertext = ciphertext?;
    open_text(tenant, ciphertext.0, aad, call).map(Some).or_else(unless_collected).or_raise()
}

#[pg_extern(sql = false)]
fn cmk_try_decrypt(
    tenant: Option<TextArg<'_>>,
    ciphertext: Option<ByteaArg<'_>>,
    aad: Option<ByteaArg<'_>>,
    forgive: Option<Array<'_, &str>>,
    call: pg_sys::FunctionCallInfo,
) -> Option<Bytea> {
    let forgiven = Forgiven::parse(forgive).or_raise();
    let ciphertext = ciphertext?;
    let opened = open(tenant, ciphertext.0, aad, call);
    forgiven.apply(opened).or_else(unless_collected).or_raise()
}

#[pg_extern(sql = false)]
fn cmk_try_decrypt_text(
    tenant: Option<TextArg<'_>>,
    ciphertext: Option<ByteaArg<'_>>,
    aad: Option<ByteaArg<'_>>,
    forgive: Option<Array<'_, &str>>,
    call: pg_sys::FunctionCallInfo,
) -> Option<Text> {
    let forgiven = Forgiven::parse(forgive).or_raise();
    let ciphertext = ciphertext?;
    let opened = open_text(tenant, ciphertext.0, aad, call);
    forgiven.apply(opened).or_else(unless_collected).or_raise()
}

/// Whether an envelope may be sealed once more.
const ONCE: bool = false;
const NESTED: bool = true;

/// The result is allocated before the keyring is asked: nothing may wait or jump while it holds a
/// key. Whoever has no grant does not learn whether a value was an envelope.
///
/// # Errors
/// `null_argument`, `tenant_name`, `too_large`, `already_sealed`; as
/// [`Keyring::seal`](cmk_keyring::keyring::Keyring::seal).
#[inline]
fn seal<const MAY_NEST: bool>(
    tenant: Option<TextArg<'_>>,
    plaintext: &[u8],
    aad: Option<ByteaArg<'_>>,
    call: pg_sys::FunctionCallInfo,
) -> Result<Bytea> {
    let (tenant, aad) = binding(tenant, aad)?;
    let named = |error: Error| error.for_tenant(tenant);
    let mut sealed = Bytea::with_len(plaintext.len() + OVERHEAD).map_err(named)?;
    // SAFETY: the call of the function that we are in.
    let process = unsafe { ThisProcess::called(call) };
    keyring().seal(&process, tenant, aad, plaintext, sealed.as_mut_slice())?;
    if !MAY_NEST {
        already_sealed::refuse(plaintext).map_err(named)?;
    }
    Ok(sealed)
}

/// NULL in place of an error where statistics are collected of what a call returns.
#[cold]
fn unless_collected<T>(error: Error) -> Result<Option<T>> {
    match error.reason {
        Reason::SecurityRestricted if statistics::are_collected() => Ok(None),
        _ => Err(error),
    }
}

#[inline]
fn open(
    tenant: Option<TextArg<'_>>,
    ciphertext: &[u8],
    aad: Option<ByteaArg<'_>>,
    call: pg_sys::FunctionCallInfo,
) -> Result<Bytea> {
    let (tenant, aad) = binding(tenant, aad)?;
    open_for(tenant, ciphertext, aad, call)
}

fn open_text(
    tenant: Option<TextArg<'_>>,
    ciphertext: &[u8],
    aad: Option<ByteaArg<'_>>,
    call: pg_sys::FunctionCallInfo,
) -> Result<Text> {
    let (tenant, aad) = binding(tenant, aad)?;
    open_for(tenant, ciphertext, aad, call)?.into_text().map_err(|error| error.for_tenant(tenant))
}

#[inline]
fn open_for(
    tenant: &str,
    ciphertext: &[u8],
    aad: &[u8],
    call: pg_sys::FunctionCallInfo,
) -> Result<Bytea> {
    let named = |error: Error| error.for_tenant(tenant);
    if in_security_restricted_operation() {
        return Err(named(Reason::SecurityRestricted.into()));
    }
    let envelope = Envelope::parse(ciphertext).map_err(named)?;
    let mut opened = Bytea::with_len(envelope.plaintext_len()).map_err(named)?;
    // SAFETY: the call of the function that we are in.
    let process = unsafe { ThisProcess::called(call) };
    keyring().open(&process, tenant, aad, &envelope, opened.as_mut_slice())?;
    Ok(opened)
}

/// What a value is bound to.
///
/// # Errors
/// `null_argument`, `tenant_name`.
#[inline]
fn binding<'a>(
    tenant: Option<TextArg<'a>>,
    aad: Option<ByteaArg<'a>>,
) -> Result<(&'a str, &'a [u8])> {
    let (TextArg(tenant), ByteaArg(aad)) = (required(tenant, "tenant")?, required(aad, "aad")?);
    Ok((read_tenant_name(tenant)?, aad))
}

/// Which failures `cmk_try_decrypt` turns into NULL.
enum Forgiven {
    /// Those that concern this one value.
    Default,
    /// One bit for each place in [`Reason::ALL`].
    These(u128),
}

/// Names that `forgive` may hold: more than there are reasons, so that a sloppy list passes.
const FORGIVE_MAX: usize = 256;

impl Forgiven {
    /// # Errors
    /// `reason_name` for a name that isn't in the table of errors; `too_many_names`.
    fn parse(names: Option<Array<'_, &str>>) -> Result<Self> {
        const { assert!(Reason::ALL.len() <= u128::BITS as usize) };
        let Some(names) = names else { return Ok(Self::Default) };
        if names.len() > FORGIVE_MAX {
            return Err(Reason::TooManyNames.into());
        }
        let mut forgiven = 0;
        for name in names.iter() {
            let reason = name.and_then(Reason::from_name).ok_or(Reason::ReasonName)?;
            forgiven |= Self::bit(reason);
        }
        Ok(Self::These(forgiven))
    }

    fn bit(reason: Reason) -> u128 {
        1 << reason as u32
    }

    fn apply<T>(&self, opened: Result<T>) -> Result<Option<T>> {
        let forgives = |error: &Error| match self {
            Self::Default => error.reason.concerns_one_value(),
            Self::These(reasons) => reasons & Self::bit(error.reason) != 0,
        };
        match opened {
            Ok(value) => Ok(Some(value)),
            Err(error) if forgives(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }
}
