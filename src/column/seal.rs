//! The sealing trigger `"~cmk_seal"`: BEFORE INSERT OR UPDATE, for each row, always.
//!
//! Its name sorts behind those of other triggers, so that it sees what they made of the row. What
//! arrives as plaintext is sealed for the row's tenant. What arrives sealed for this tenant and
//! column stays as it is, byte for byte; what was sealed for another is opened and sealed anew,
//! which takes the grants for both, and is refused where rows are written as they come from
//! elsewhere.

use super::check::{header_of, of_column};
use super::input::{refuse_armor, refuse_envelope};
use super::kind::Kind;
use super::open::{Clear, clear};
use super::options::Search;
use super::seal_value::Tenant;
use super::{catalog, recent, tenants, token};
use crate::pg::call::Call;
use crate::pg::datum::{content, is_stored_alike};
use crate::pg::error_context;
use crate::pg::identity::is_superuser;
use crate::pg::process::ThisProcess;
use crate::pg::protected_row::{Row, RowTenant, is_replica, kept};
use crate::pg::raw::column_function;
use crate::pg::settings::values::column_tenant;
use cmk_envelope::column::{ColumnTag, Header, TenantTag};
use cmk_error::{Error, Reason, Result, quoted};
use pgrx::pg_sys;
use std::ffi::CString;
use std::rc::Rc;

/// A protected column of the table.
struct Column {
    number: pg_sys::AttrNumber,
    kind: Kind,
    label: String,
    tag: ColumnTag,
    /// If values can be searched for.
    search: Option<Search>,
    /// `None`: the setting's.
    tenant: Option<RowTenant>,
    /// In characters.
    limit: Option<usize>,
    /// The tenant of which an envelope could not be opened, for want of a grant or of its key: the
    /// next of that tenant are not tried.
    key_is_away: Option<TenantTag>,
}

/// What is the same for all rows of a statement.
struct Plan(Vec<Column>);

impl Plan {
    /// # Errors
    /// `protection_lost` if a column's constraint isn't there; `column_options`.
    fn make(row: Row, context: pg_sys::MemoryContext) -> Result<Self> {
        let types = catalog::types();
        let mut protections = row.protections();
        let mut columns = Vec::new();
        for (number, type_oid, modifier) in row.columns() {
            let Some(kind) = types.kind(type_oid) else { continue };
            let found = protections.iter().position(|it| it.column == number);
            let Some(found) = found else {
                return Err(catalog::of_table_column(Reason::ProtectionLost, row, number));
            };
            let protection = protections.swap_remove(found);
            let tenant = row.tenant(&protection);
            // SAFETY: an expression over this table's rows.
            let tenant = tenant.map(|it| unsafe { RowTenant::prepare(row, it, context) });
            columns.push(Column {
                number,
                kind,
                tag: ColumnTag::of(protection.label.as_bytes()),
                search: Search::parse(protection.options.as_deref().map(str::as_bytes))?,
                label: protection.label,
                tenant,
                limit: catalog::limit(kind, modifier),
                key_is_away: None,
            });
        }
        Ok(Self(columns))
    }
}

impl Column {
    fn error(&self, reason: Reason) -> Error {
        of_column(reason, &self.label)
    }

    /// The value to be stored; `None`: as it is.
    fn seal(&mut self, call: Call, row: Row) -> Result<Option<pg_sys::Datum>> {
        let Some(value) = row.value(self.number) else { return Ok(None) };
        let header = header_of(value);
        // Where the row doesn't say whose it is, what was there stays its tenant's.
        let kept =
            header.filter(|header| self.tenant.is_none() && self.keeps_tenant(row, value, header));
        let former: Rc<str>;
        let setting: CString;
        let name = match (&self.tenant, &kept) {
            (Some(tenant), _) => tenant.of(row).ok_or_else(|| self.error(Reason::TenantNull))?,
            (None, Some(header)) => {
                if self.keeps_tokens(call, row, value, header)? {
                    return Ok(None);
                }
                former = tenants::of(&header.dek_id)?;
                former.as_bytes()
            }
            (None, None) => {
                setting = column_tenant().ok_or_else(|| self.error(Reason::TenantUnset))?;
                setting.as_bytes()
            }
        };
        let tenant = Tenant::named(name)?;

        if let Some(header) = header {
            let is_own = header.tenant == tenant.tag && header.column == self.tag;
            if is_own && self.keeps_tokens(call, row, value, &header)? {
                return self.keep(call, row, value, header.tenant).map(|()| None);
            }
            if is_replica() {
                let lacks = if is_own { Reason::TokenMissing } else { Reason::ForeignEnvelope };
                return Err(self.error(lacks));
            }
        }
        // SAFETY: a value of one of our types.
        let stored = unsafe { content(value) };
        let clear = clear(&ThisProcess::of(call), stored)?;
        if let Clear::Plain(plain) = &clear {
            refuse_armor(self.kind, plain)?;
        }
        let fitting = self.fit(clear.as_slice())?;
        let sealed = tenant.seal(call, self.tag, self.search.as_ref(), fitting)?;
        if let Clear::Plain(plain) = &clear {
            refuse_envelope(plain).map_err(|error| error.for_tenant(tenant.name))?;
        }
        Ok(Some(sealed))
    }

    /// Whether the row had this very value before, or has it with other tokens now.
    fn keeps_tenant(&self, row: Row, value: pg_sys::Datum, header: &Header) -> bool {
        if header.column != self.tag {
            return false;
        }
        let was = || row.old_value(self.number).and_then(header_of);
        let is_of = |was: Header| (was.column, was.tenant) == (header.column, header.tenant);
        // SAFETY: a value of one of our types.
        let was_made_here = || recent::contains(unsafe { content(value) });
        self.had(row, value) || was().is_some_and(is_of) && was_made_here()
    }

    /// Whether an envelope of this column stays as it is as far as its tokens go: they are of the
    /// column's kind, and made under index keys in use, or the row had this very value before.
    ///
    /// # Errors
    /// `not_installed`.
    #[inline]
    fn keeps_tokens(
        &self,
        call: Call,
        row: Row,
        value: pg_sys::Datum,
        header: &Header,
    ) -> Result<bool> {
        let rule = self.search.as_ref().map(|search| search.rule);
        let of_its_kind = header.tokens.map(|tokens| tokens.rule) == rule;
        if of_its_kind && (rule.is_none() || self.had(row, value) || is_replica()) {
            return Ok(true);
        }
        token::are_current(&ThisProcess::of(call), header, self.search.as_ref())
    }

    /// An envelope of this tenant and column that the row did not have before is opened once to see
    /// that it is one, where that can be. Not where a publisher sends it, which has no grants and
    /// should not wait for KMS. Who restores a dump as a superuser may not have restored the data
    /// keys yet.
    ///
    /// # Errors
    /// `not_authentic`, `unknown_data_key`.
    #[inline]
    fn keep(
        &mut self,
        call: Call,
        row: Row,
        value: pg_sys::Datum,
        tenant: TenantTag,
    ) -> Result<()> {
        if self.had(row, value) || self.key_is_away == Some(tenant) || is_replica() {
            return Ok(());
        }
        // SAFETY: a value of one of our types.
        let stored = unsafe { content(value) };
        if recent::contains(stored) {
            return Ok(());
        }
        match clear(&ThisProcess::of(call), stored) {
            Ok(_) => Ok(()),
            Err(error) if error.reason == Reason::UnknownDataKey && is_superuser() => Ok(()),
            Err(error) if error.reason.concerns_one_value() => Err(error),
            // A session that works for one tenant wrote a row of another.
            Err(error) if error.reason == Reason::TenantMismatch => Err(error),
            Err(_) => {
                self.key_is_away = Some(tenant);
                Ok(())
            }
        }
    }

    /// Whether the row had this very value before.
    #[inline]
    fn had(&self, row: Row, value: pg_sys::Datum) -> bool {
        row.old_value(self.number).is_some_and(|was| is_stored_alike(was, value))
    }

    /// The plaintext as long as the column allows: as with varchar(n), blanks beyond that are cut.
    ///
    /// # Errors
    /// `too_long`.
    fn fit<'a>(&self, clear: &'a [u8]) -> Result<&'a [u8]> {
        let Some(limit) = self.limit.filter(|limit| clear.len() > *limit) else {
            return Ok(clear);
        };
        let text = std::str::from_utf8(clear).map_err(|_| Reason::NotText)?;
        let Some((end, _)) = text.char_indices().nth(limit) else { return Ok(clear) };
        match clear[end..].iter().all(|byte| *byte == b' ') {
            true => Ok(&clear[..end]),
            false => {
                let info = format!("column={} limit={limit}", quoted(&self.label));
                Err(Error::new(Reason::TooLong).with_info(info))
            }
        }
    }
}

fn seal_row(call: Call) -> Result<pg_sys::Datum> {
    let row = Row::of(call)?;
    let plan = kept(call, |context| {
        error_context::statement_seals();
        Plan::make(row, context)
    })?;
    let mut columns = Vec::new();
    let mut values = Vec::new();
    for column in &mut plan.0 {
        if let Some(sealed) = column.seal(call, row)? {
            columns.push(column.number.into());
            values.push(sealed);
        }
    }
    Ok(row.with(&columns, &values))
}

column_function!(column_seal, |call| error_context::hidden(|| seal_row(call)));
