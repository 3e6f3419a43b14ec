//! `cmk_encrypt`, `cmk_decrypt` and their kin.
//!
//! Not STRICT, unlike what one would expect: a STRICT function returns NULL for a NULL tenant, so an
//! unset `current_setting('app.tenant', true)` would silently store nothing. Only the value may be NULL.

use crate::envelope::{Envelope, OVERHEAD};
use crate::error::{Error, Reason, Result};
use crate::pg::backend::{Backend, in_security_restricted_operation, keyring};
use crate::pg::datum::{Bytea, ByteaArg, Text, TextArg, required};
use crate::pg::report::SqlResult;
use crate::registry::TENANT_NAME_MAX;
use pgrx::{Array, default, pg_extern};

#[pg_extern(volatile, parallel_restricted)]
fn cmk_encrypt(
    tenant: Option<TextArg<'_>>,
    plaintext: Option<ByteaArg<'_>>,
    aad: default!(Option<ByteaArg<'_>>, "''::pg_catalog.bytea"),
) -> SqlResult<Option<Bytea>> {
    let Some(plaintext) = plaintext else { return Ok(None) };
    Ok(Some(seal(tenant, plaintext.0, aad)?))
}

#[pg_extern(volatile, parallel_restricted)]
fn cmk_encrypt_text(
    tenant: Option<TextArg<'_>>,
    plaintext: Option<TextArg<'_>>,
    aad: default!(Option<ByteaArg<'_>>, "''::pg_catalog.bytea"),
) -> SqlResult<Option<Bytea>> {
    let Some(plaintext) = plaintext else { return Ok(None) };
    Ok(Some(seal(tenant, plaintext.0, aad)?))
}

#[pg_extern(stable, parallel_restricted)]
fn cmk_decrypt(
    tenant: Option<TextArg<'_>>,
    ciphertext: Option<ByteaArg<'_>>,
    aad: default!(Option<ByteaArg<'_>>, "''::pg_catalog.bytea"),
) -> SqlResult<Option<Bytea>> {
    let Some(ciphertext) = ciphertext else { return Ok(None) };
    Ok(Some(open(tenant, ciphertext.0, aad)?))
}

#[pg_extern(stable, parallel_restricted)]
fn cmk_decrypt_text(
    tenant: Option<TextArg<'_>>,
    ciphertext: Option<ByteaArg<'_>>,
    aad: default!(Option<ByteaArg<'_>>, "''::pg_catalog.bytea"),
) -> SqlResult<Option<Text>> {
    let Some(ciphertext) = ciphertext else { return Ok(None) };
    Ok(Some(open_text(tenant, ciphertext.0, aad)?))
}

#[pg_extern(stable, parallel_restricted)]
fn cmk_try_decrypt(
    tenant: Option<TextArg<'_>>,
    ciphertext: Option<ByteaArg<'_>>,
    aad: default!(Option<ByteaArg<'_>>, "''::pg_catalog.bytea"),
    forgive: default!(Option<Array<'_, &str>>, "NULL"),
) -> SqlResult<Option<Bytea>> {
    let forgiven = Forgiven::parse(forgive)?;
    let Some(ciphertext) = ciphertext else { return Ok(None) };
    Ok(forgiven.apply(open(tenant, ciphertext.0, aad))?)
}

#[pg_extern(stable, parallel_restricted)]
fn cmk_try_decrypt_text(
    tenant: Option<TextArg<'_>>,
    ciphertext: Option<ByteaArg<'_>>,
    aad: default!(Option<ByteaArg<'_>>, "''::pg_catalog.bytea"),
    forgive: default!(Option<Array<'_, &str>>, "NULL"),
) -> SqlResult<Option<Text>> {
    let forgiven = Forgiven::parse(forgive)?;
    let Some(ciphertext) = ciphertext else { return Ok(None) };
    Ok(forgiven.apply(open_text(tenant, ciphertext.0, aad))?)
}

/// The result is allocated before the keyring is asked: nothing may wait or jump while it holds a key.
#[inline]
fn seal(tenant: Option<TextArg<'_>>, plaintext: &[u8], aad: Option<ByteaArg<'_>>) -> Result<Bytea> {
    let (tenant, aad) = binding(tenant, aad)?;
    let named = |error: Error| error.for_tenant(tenant);
    let mut sealed = Bytea::with_len(plaintext.len() + OVERHEAD).map_err(named)?;
    keyring().seal(&Backend, tenant, aad, plaintext, sealed.as_mut_slice())?;
    Ok(sealed)
}

#[inline]
fn open(
    tenant: Option<TextArg<'_>>,
    ciphertext: &[u8],
    aad: Option<ByteaArg<'_>>,
) -> Result<Bytea> {
    let (tenant, aad) = binding(tenant, aad)?;
    open_for(tenant, ciphertext, aad)
}

fn open_text(
    tenant: Option<TextArg<'_>>,
    ciphertext: &[u8],
    aad: Option<ByteaArg<'_>>,
) -> Result<Text> {
    let (tenant, aad) = binding(tenant, aad)?;
    open_for(tenant, ciphertext, aad)?.into_text().map_err(|error| error.for_tenant(tenant))
}

#[inline]
fn open_for(tenant: &str, ciphertext: &[u8], aad: &[u8]) -> Result<Bytea> {
    let named = |error: Error| error.for_tenant(tenant);
    if in_security_restricted_operation() {
        return Err(named(Reason::SecurityRestricted.into()));
    }
    let envelope = Envelope::parse(ciphertext).map_err(named)?;
    let mut opened = Bytea::with_len(envelope.plaintext_len()).map_err(named)?;
    keyring().open(&Backend, tenant, aad, &envelope, opened.as_mut_slice())?;
    Ok(opened)
}

/// What a value is bound to.
///
/// # Errors
/// `null_argument`; `tenant_name` for a name that is too long or isn't UTF-8, which no registered one is.
#[inline]
fn binding<'a>(
    tenant: Option<TextArg<'a>>,
    aad: Option<ByteaArg<'a>>,
) -> Result<(&'a str, &'a [u8])> {
    let (TextArg(tenant), ByteaArg(aad)) = (required(tenant, "tenant")?, required(aad, "aad")?);
    // Before anything repeats the name in an error.
    if tenant.len() > TENANT_NAME_MAX {
        return Err(Reason::TenantName.into());
    }
    Ok((std::str::from_utf8(tenant).map_err(|_| Reason::TenantName)?, aad))
}

/// Which failures `cmk_try_decrypt` turns into NULL.
enum Forgiven {
    /// Those that concern this one value.
    Default,
    These(Vec<Reason>),
}

impl Forgiven {
    /// # Errors
    /// `reason_name` for a name that isn't in the table of errors.
    fn parse(names: Option<Array<'_, &str>>) -> Result<Self> {
        let Some(names) = names else { return Ok(Self::Default) };
        let resolve = |name: Option<&str>| name.and_then(Reason::from_name);
        let reasons: Option<Vec<_>> = names.iter().map(resolve).collect();
        Ok(Self::These(reasons.ok_or(Reason::ReasonName)?))
    }

    fn apply<T>(&self, opened: Result<T>) -> Result<Option<T>> {
        let forgives = |error: &Error| match self {
            Self::Default => error.reason.concerns_one_value(),
            Self::These(reasons) => reasons.contains(&error.reason),
        };
        match opened {
            Ok(value) => Ok(Some(value)),
            Err(error) if forgives(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }
}
