//! `cmk.seal_batch`: seals what is still plaintext in some blocks of a table, and gives values the
//! tokens that they are to have.

use super::catalog;
use super::kind::Kind;
use crate::pg::protection::{self, Protection};
use crate::pg::registry::lock;
use crate::pg::relation;
use crate::pg::settings::level::Level;
use cmk_error::{Error, Reason, Result};
use pgrx::spi::Spi;
use pgrx::{PgRelation, pg_sys};
use std::ffi::CStr;

/// Seals the unsealed values of one column in blocks `first` to before `last` of the table itself,
/// without its partitions and children, and those anew whose tokens are not those that they are to
/// have. Returns how many rows that were. Rows of the tenants in `skip` stay as they are; null
/// there stands for rows without a tenant.
///
/// Unsealed rows are updated to themselves, and the trigger seals them. If the caller may set
/// `session_replication_role`, as a superuser may, that is done as a replica does it: the sealing
/// trigger fires, those of users don't, so that no `updated_at` changes.
///
/// # Errors
/// `not_protected`, `not_owner`, `read_only`; as sealing does.
pub fn seal_batch(
    table: pg_sys::Oid,
    column: pg_sys::AttrNumber,
    blocks: std::ops::Range<i64>,
    skip: &[Option<String>],
) -> Result<i64> {
    let relation = relation::open(table, pg_sys::RowExclusiveLock, || Reason::NotProtected.into())?;
    if !lock::current_role_owns(&relation) {
        return Err(Reason::NotOwner.into());
    }
    let protection = protection_of(&relation, column).ok_or(Reason::NotProtected)?;
    let update = statement(&relation, &protection)?;
    let is_in_foreign_key = is_in_foreign_key(table, column)?;
    let level = Level::begin();
    // Only for who may do so anyway: it switches off triggers and foreign keys, also those of other
    // tables that code of this table's owner gets to.
    if !is_in_foreign_key {
        level.set_if_allowed(c"session_replication_role", c"replica");
    }
    // Rows that are there are text, also those that look like armor.
    level.set(c"cmk_encrypt.input", c"text");
    // An ERROR is better than rows that a policy hides, and that stay as they are.
    level.set(c"row_security", c"off");
    let tid = |block: i64| format!("({block},0)");
    let named: Vec<String> = skip.iter().flatten().cloned().collect();
    let skips_null = named.len() < skip.len();
    let arguments = [
        tid(blocks.start).into(),
        tid(blocks.end).into(),
        named.into(),
        skips_null.into(),
        protection.label.into(),
        protection.options.into(),
    ];
    let sealed =
        Spi::connect_mut(|client| client.update(&update, None, &arguments).map(|it| it.len()));
    level.end();
    // SPI itself refused: the statement isn't one for the table that there is.
    sealed.map(|rows| rows as i64).map_err(|_| Reason::NotProtected.into())
}

/// # Errors
/// `registry_unusable`.
fn is_in_foreign_key(table: pg_sys::Oid, column: pg_sys::AttrNumber) -> Result<bool> {
    const QUERY: &str = "
        SELECT cmk_internal.is_in_foreign_key($1::pg_catalog.oid::pg_catalog.regclass, $2)";
    let found = Spi::get_one_with_args::<bool>(QUERY, &[table.into(), column.into()]);
    found.map(|found| found == Some(true)).map_err(|_| Reason::RegistryUnusable.into())
}

/// The tenant of rows that don't say whose they are.
const SETTING: &str = "pg_catalog.current_setting('cmk_encrypt.tenant', true)";

/// # Errors
/// `not_protected`.
fn statement(relation: &PgRelation, protection: &Protection) -> Result<String> {
    let column = protection.column;
    let not_protected = || Error::new(Reason::NotProtected);
    let table = qualified_name(relation.oid()).ok_or_else(not_protected)?;
    let name = quoted_column(relation.oid(), column).ok_or_else(not_protected)?;
    let tuple_descriptor = relation.tuple_desc();
    let attribute = tuple_descriptor.get((column - 1) as usize).ok_or_else(not_protected)?;
    let kind = catalog::types().kind(attribute.atttypid).ok_or_else(not_protected)?;
    let (new_value, is_pending) = match kind {
        Kind::Text => (
            format!(
                "CASE WHEN cmk.is_sealed({name}) THEN cmk.reseal({name}, $5, $6) ELSE {name} END"
            ),
            format!("{name} IS NOT NULL AND cmk.needs_sealing({name}, $5, $6)"),
        ),
        Kind::Bytea | Kind::Jsonb => (name.clone(), format!("NOT cmk.is_sealed({name})")),
    };
    // Where the row does not say whose it is, what is sealed stays its tenant's.
    let tenant = tenant_of(relation, protection).unwrap_or_else(|| match kind {
        Kind::Text => format!("COALESCE(cmk.sealed_for({name}), {SETTING})"),
        Kind::Bytea | Kind::Jsonb => SETTING.into(),
    });
    // Not IS DISTINCT FROM, whose operator is whatever `=` search_path finds first.
    let tenant = format!("({tenant})::pg_catalog.text");
    let skips = format!(
        "CASE WHEN {tenant} IS NULL THEN $4
              ELSE {tenant} OPERATOR(pg_catalog.=) ANY ($3::pg_catalog.text[]) END"
    );
    Ok(format!(
        "UPDATE ONLY {table} SET {name} = {new_value}
          WHERE ctid OPERATOR(pg_catalog.>=) $1::pg_catalog.tid
            AND ctid OPERATOR(pg_catalog.<) $2::pg_catalog.tid AND ({is_pending})
            AND NOT ({skips})"
    ))
}

/// `None`: the column isn't protected.
fn protection_of(relation: &PgRelation, column: pg_sys::AttrNumber) -> Option<Protection> {
    // SAFETY: an open table.
    let protections = unsafe { protection::of_table(relation.as_ptr()) };
    protections.into_iter().find(|protection| protection.column == column)
}

/// The SQL of a column's tenant, as its constraint or the trigger has it; `None`: the setting's.
fn tenant_of(relation: &PgRelation, protection: &Protection) -> Option<String> {
    let label = &protection.label;
    // SAFETY: an open table.
    let in_trigger = || unsafe { protection::tenant_in_trigger(relation.as_ptr(), label) };
    let node = protection.tenant.or_else(in_trigger)?;
    // SAFETY: an expression over the table's rows.
    unsafe { protection::sql_of(node, relation.oid()) }
}

fn quoted(name: *const std::ffi::c_char) -> String {
    // SAFETY: a C string, and so is the result.
    unsafe { CStr::from_ptr(pg_sys::quote_identifier(name)).to_string_lossy().into_owned() }
}

fn quoted_column(table: pg_sys::Oid, column: pg_sys::AttrNumber) -> Option<String> {
    // SAFETY: a catalog look-up in a transaction on the main thread.
    let name = unsafe { pg_sys::get_attname(table, column, true) };
    (!name.is_null()).then(|| quoted(name))
}

fn qualified_name(table: pg_sys::Oid) -> Option<String> {
    // SAFETY: catalog look-ups in a transaction on the main thread.
    unsafe {
        let name = pg_sys::get_rel_name(table);
        let schema = pg_sys::get_namespace_name(pg_sys::get_rel_namespace(table));
        (!name.is_null() && !schema.is_null())
            .then(|| format!("{}.{}", quoted(schema), quoted(name)))
    }
}
