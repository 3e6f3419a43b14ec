//! The tokens that values of searchable columns are found by.

use super::options::Search;
use super::stored::Stored;
use super::tenants;
use crate::pg::process::{ThisProcess, keyring};
use cmk_crypto::commitment::DekId;
use cmk_envelope::column::{ColumnTag, Header, Token, Tokens};
use cmk_error::{Reason, Result};
use cmk_keyring::keyring::TokenFor;
use cmk_keyring::tenant::{IndexKeys, index_key_id};

/// The index keys of a tenant, to make tokens for that purpose.
///
/// # Errors
/// `unknown_tenant`, `not_installed`; of a tenant without an index key what else it is refused for,
/// else `no_index_key`.
pub fn index_keys(process: &ThisProcess, tenant: &str, purpose: TokenFor) -> Result<IndexKeys> {
    let keys = keyring().look_at(process, tenant, |tenant| tenant.index_keys());
    if keys.as_ref().is_err_and(|error| error.reason == Reason::NoIndexKey) {
        keyring().require(process, tenant, purpose)?;
    }
    keys
}

/// The tokens of a value that is sealed: under the tenant's current index key, and under the next
/// one while there is one.
///
/// # Errors
/// `no_index_key`; as [`Keyring::token`](cmk_keyring::keyring::Keyring::token).
pub fn to_seal(
    process: &ThisProcess,
    tenant: &str,
    column: ColumnTag,
    search: &Search,
    clear: &[u8],
) -> Result<Tokens> {
    let normalized = search.rule.normalization.apply(clear)?;
    let token = |id: DekId| {
        let key = (id, TokenFor::Sealing);
        let (token, _) = keyring().token(process, tenant, key, column, &normalized)?;
        Ok::<_, cmk_error::Error>(search.fit(token))
    };
    keyring().with_keys_in_use(process, || {
        let (current, next) = index_keys(process, tenant, TokenFor::Sealing)?.written();
        Ok(Tokens { rule: search.rule, first: token(current)?, next: next.map(token).transpose()? })
    })
}

/// The tokens that find a normalized value in a column: under the tenant's current index key, and
/// under the other one by which values may be found.
///
/// # Errors
/// `no_index_key`; as [`Keyring::token`](cmk_keyring::keyring::Keyring::token).
pub fn to_look_up(
    process: &ThisProcess,
    tenant: &str,
    column: ColumnTag,
    normalized: &[u8],
) -> Result<Vec<Token>> {
    let token = |id| {
        let key = (id, TokenFor::Either);
        keyring().token(process, tenant, key, column, normalized).map(|(token, _)| token)
    };
    keyring().with_keys_in_use(process, || {
        index_keys(process, tenant, TokenFor::Either)?.searched().map(token).collect()
    })
}

/// Whether a sealed value has the tokens that its column and its tenant's index keys ask for. Takes
/// no key. True also where that can't be known: of a tenant that the registry lacks, or that never
/// had an index key.
///
/// # Errors
/// `not_installed`.
pub fn are_current(
    process: &ThisProcess,
    header: &Header,
    search: Option<&Search>,
) -> Result<bool> {
    let Some(search) = search else { return Ok(header.tokens.is_none()) };
    let Some(tokens) = header.tokens.filter(|tokens| tokens.rule == search.rule) else {
        return Ok(false);
    };
    let tenant = match tenants::of(&header.dek_id) {
        Err(error) if error.reason == Reason::UnknownDataKey => return Ok(true),
        tenant => tenant?,
    };
    let keys = match keyring().look_at(process, &tenant, |tenant| tenant.index_keys()) {
        Err(error) if error.reason == Reason::NotInstalled => return Err(error),
        Err(_) => return Ok(true),
        Ok(keys) => keys,
    };
    let (current, next) = keys.written();
    let bits = |token: Token| token == search.fit(token);
    Ok(tokens.first.index_key == index_key_id(&current)
        && tokens.next.map(|token| token.index_key) == next.map(|next| index_key_id(&next))
        && bits(tokens.first)
        && tokens.next.is_none_or(bits))
}

/// As [`are_current`], of a value that may not even be sealed.
///
/// # Errors
/// As [`are_current`]; `not_an_envelope`, `unknown_suite`.
pub fn needs_sealing(process: &ThisProcess, value: &[u8], search: Option<&Search>) -> Result<bool> {
    match Stored::parse(value)? {
        Stored::Plain(_) => Ok(true),
        Stored::Sealed(envelope) => Ok(!are_current(process, &envelope.header(), search)?),
    }
}
