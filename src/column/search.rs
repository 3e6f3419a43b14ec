//! What an index on tokens is searched for: probes. The planner puts these functions in the place
//! of the value that a query compares with; they run once for each scan, not while it is planned.

use super::kind::Kind;
use super::options::Search;
use super::reach::{self, Reach, Skipped, TENANTS_MAX};
use super::stored::Stored;
use super::{catalog, open, tags, token};
use crate::pg::array;
use crate::pg::call::Call;
use crate::pg::datum::Bytea;
use crate::pg::process::{ThisProcess, keyring};
use crate::pg::raw::column_function;
use cmk_crypto::commitment::DekId;
use cmk_envelope::column::{ColumnTag, probe};
use cmk_error::{Error, Reason, Result};
use cmk_keyring::keyring::TokenFor;
use cmk_keyring::tenant::{IndexKeys, index_key_id, read_tenant_name};
use pgrx::pg_sys;

/// The column that is searched.
struct Column {
    tag: ColumnTag,
    search: Search,
}

impl Column {
    /// Out of the arguments that say its label and its options.
    ///
    /// # Errors
    /// `not_searchable`, `column_options`.
    fn of(call: Call, label: usize, options: usize) -> Result<Self> {
        let search = Search::parse(call.nullable_bytes(options))?;
        let search = search.ok_or(Reason::NotSearchable)?;
        Ok(Self { tag: tags::of_column(call.bytes(label)), search })
    }

    /// What is stored of a value under an index key.
    fn probe(
        &self,
        process: &ThisProcess,
        tenant: &str,
        key: DekId,
        value: &Stored<'_>,
    ) -> Result<pg_sys::Datum> {
        let tenant_tag = tags::of_tenant(tenant.as_bytes());
        if let Stored::Sealed(envelope) = value
            && envelope.tenant_tag() == tenant_tag
            && envelope.column_tag() == self.tag
            && let Some(tokens) = envelope.tokens().filter(|it| it.rule == self.search.rule)
            && let Some(token) = tokens.of(index_key_id(&key))
            && token == self.search.fit(token)
        {
            return Ok(Bytea::copy(&[&probe(tenant_tag, token)])?.into_datum());
        }
        let opened;
        let clear = match value {
            Stored::Plain(plain) => *plain,
            Stored::Sealed(envelope) => {
                opened = open::open(process, envelope)?;
                opened.as_slice()
            }
        };
        let normalized = self.search.rule.normalization.apply(clear)?;
        let key = (key, TokenFor::Searching);
        let (token, _) = keyring().token(process, tenant, key, self.tag, &normalized)?;
        let probe = probe(tenant_tag, self.search.fit(token));
        Ok(Bytea::copy(&[&probe])?.into_datum())
    }

    /// What may be stored of some values, under each of the index keys that `keys` returns.
    ///
    /// # Errors
    /// Those of `keys` and of [`probe`](Self::probe).
    fn probes(
        &self,
        process: &ThisProcess,
        tenant: &str,
        keys: impl Fn() -> Result<IndexKeys>,
        values: &[Stored<'_>],
    ) -> Result<Vec<pg_sys::Datum>> {
        keyring().with_keys_in_use(process, || {
            let (keys, mut probes) = (keys()?, Vec::new());
            for key in keys.searched() {
                probes.try_reserve(values.len()).map_err(|_| Reason::OutOfMemory)?;
                for value in values {
                    probes.push(self.probe(process, tenant, key, value)?);
                }
            }
            Ok(probes)
        })
    }
}

/// What finds a value that isn't sealed yet.
fn plain(process: &ThisProcess, value: &Stored<'_>) -> Result<pg_sys::Datum> {
    match value {
        Stored::Plain(plain) => Ok(Bytea::copy(&[plain])?.into_datum()),
        Stored::Sealed(envelope) => Ok(open::open(process, envelope)?.into_datum()),
    }
}

/// Which of a tenant's probes, as the planner numbers them.
const PLAIN: i32 = 0;
const CURRENT: i32 = 1;
const ONLY: i32 = 3;

// `cmk.probe(value, tenant, slot, label, options)`; null if there is nothing in the slot.
column_function!(column_probe, |call| {
    if call.is_null(0) || call.is_null(1) {
        return Ok(call.return_null());
    }
    let process = ThisProcess::of(call);
    let value = Stored::parse(call.bytes(0))?;
    let slot = call.datum(2).value() as i32;
    if slot == PLAIN {
        return plain(&process, &value);
    }
    let tenant = read_tenant_name(call.bytes(1))?;
    keyring().with_keys_in_use(&process, || {
        let keys = token::index_keys(&process, tenant, TokenFor::Searching)?;
        let key = match slot {
            CURRENT => Some(keys.current),
            // Of a cursor, say, that was opened before, and fetched from now.
            ONLY if keys.other().is_some() => {
                return Err(Error::new(Reason::IndexKeyReplaced).for_tenant(tenant));
            }
            ONLY => Some(keys.current),
            _ => keys.other(),
        };
        match key {
            None => Ok(call.return_null()),
            Some(key) => Column::of(call, 3, 4)?.probe(&process, tenant, key, &value),
        }
    })
});

/// The probes of several values: for one tenant, or for those of the reach.
fn probes(
    process: &ThisProcess,
    column: &Column,
    tenant: Option<&str>,
    values: &[Stored<'_>],
) -> Result<pg_sys::Datum> {
    let one = match tenant {
        Some(tenant) => Some(tenant.to_owned()),
        None => reach::setting()?,
    };
    let mut found = match one {
        Some(tenant) => {
            let keys = || token::index_keys(process, &tenant, TokenFor::Searching);
            column.probes(process, &tenant, keys, values)?
        }
        None => {
            let (tenants, mut found) = (reach::granted()?, Vec::new());
            if tenants.len() > TENANTS_MAX {
                return Err(Reason::TooManyTenants.into());
            }
            let mut skipped = Skipped::default();
            for tenant in tenants.iter() {
                let keys = || keyring().look_at(process, tenant, |tenant| tenant.index_keys());
                match column.probes(process, tenant, keys, values) {
                    Ok(probes) => {
                        found.try_reserve(probes.len()).map_err(|_| Reason::OutOfMemory)?;
                        found.extend(probes);
                    }
                    // Without one, it has no values with tokens.
                    Err(error) if error.reason == Reason::NoIndexKey => {}
                    Err(error) => Reach::Granted.leave_out(tenant, error, &mut skipped)?,
                }
            }
            found
        }
    };
    for value in values {
        found.push(plain(process, value)?);
    }
    Ok(array::make(&mut found, catalog::type_oid(Kind::Text)))
}

// `cmk.probes(value, label, options)`.
column_function!(column_probes, |call| {
    if call.is_null(0) {
        return Ok(call.return_null());
    }
    let column = Column::of(call, 1, 2)?;
    probes(&ThisProcess::of(call), &column, None, &[Stored::parse(call.bytes(0))?])
});

// `cmk.probes_any(values, tenant, label, options)`.
column_function!(column_probes_any, |call| {
    if call.is_null(0) {
        return Ok(call.return_null());
    }
    let column = Column::of(call, 2, 3)?;
    let values = array::elements(call.datum(0))?.into_iter().flatten();
    let values = values.map(Stored::parse).collect::<Result<Vec<_>>>()?;
    let tenant = call.nullable_bytes(1).map(read_tenant_name).transpose()?;
    probes(&ThisProcess::of(call), &column, tenant, &values)
});
