//! Looks through all columns of the database that can hold envelopes for the data keys that seal
//! them, without a key and without a lock that keeps writers out.

use super::catalog;
use super::newest::is_newest;
use super::reencrypt::data_key_of;
use crate::pg::datum::head;
use crate::pg::latest;
use crate::pg::registry::read;
use crate::pg::relation;
use crate::pg::table_scan::{self, Rows};
use cmk_crypto::commitment::DekId;
use cmk_envelope::Envelope;
use cmk_envelope::column::{HEADER_MAX, INDEX_KEY_ID_LEN, header};
use cmk_error::{Error, Reason, Result};
use pgrx::spi::Spi;
use pgrx::{PgRelation, PgTupleDesc, pg_sys};
use std::collections::{BTreeMap, BTreeSet};

/// A table and its columns that can hold envelopes, with their names as SQL has them.
struct Table {
    oid: pg_sys::Oid,
    columns: Vec<(pg_sys::AttrNumber, String)>,
}

/// Columns of type `bytea` and of the types of protected columns, and of domains over them, of all
/// tables and materialized views that can be read from here.
///
/// # Errors
/// `registry_unusable`.
fn tables() -> Result<Vec<Table>> {
    const QUERY: &str = "
        SELECT e.relation, e.attnum, e.name
          FROM cmk_internal.envelope_columns() e
         WHERE NOT e.is_out_of_reach
         ORDER BY e.relation, e.attnum";
    let read = Spi::connect(|client| -> pgrx::spi::SpiResult<Vec<Table>> {
        let mut tables: Vec<Table> = Vec::new();
        for row in client.select(QUERY, None, &[])? {
            let (oid, number) = (row.get::<pg_sys::Oid>(1)?, row.get::<i16>(2)?);
            let (Some(oid), Some(number), Some(name)) = (oid, number, row.get::<String>(3)?) else {
                continue;
            };
            match tables.last_mut().filter(|table| table.oid == oid) {
                Some(table) => table.columns.push((number, name)),
                None => tables.push(Table { oid, columns: vec![(number, name)] }),
            }
        }
        Ok(tables)
    });
    read.map_err(|_| Reason::RegistryUnusable.into())
}

/// Of these data keys, those that seal a value that is committed now, each with the name of a
/// column that holds one.
///
/// # Errors
/// `registry_unusable`.
pub fn needed(data_keys: &[DekId]) -> Result<BTreeMap<DekId, String>> {
    Ok(look(tables()?, data_keys, Rows::Committed))
}

/// The same for a proof that the others are not needed: of values that anybody can still see, or is
/// writing.
///
/// A value that moves from one table to another while this looks is found in one of them. The
/// snapshot is taken first and held to the end, so that no row goes that was there then; and
/// whoever copies a value has it from such a row. The tables can't be dropped or emptied meanwhile,
/// and one that came and took the values of another before that is listed.
///
/// # Errors
/// `registry_unusable`.
pub fn needed_by_anybody(data_keys: &[DekId]) -> Result<BTreeMap<DekId, String>> {
    latest::with_snapshot(|| {
        let mut kept = BTreeSet::new();
        loop {
            let listed = latest::with_snapshot(tables)?;
            let fresh: Vec<_> = listed.iter().map(|it| it.oid.to_u32()).collect();
            if fresh.iter().all(|oid| kept.contains(oid)) {
                return Ok(look(listed, data_keys, Rows::NotYetRemovable));
            }
            // One that is gone by now is not listed again.
            kept.extend(fresh.into_iter().filter(|oid| table_scan::keep((*oid).into())));
        }
    })
}

fn look(tables: Vec<Table>, data_keys: &[DekId], which: Rows) -> BTreeMap<DekId, String> {
    let mut needed = BTreeMap::new();
    for Table { oid, columns } in tables {
        let numbers: Vec<_> = columns.iter().map(|(number, _)| *number).collect();
        table_scan::visit(oid, &numbers, which, |place, value| {
            if let Some(id) = data_key_of(head(value, HEADER_MAX))
                && data_keys.contains(&id)
            {
                needed.entry(id).or_insert_with(|| columns[place].1.clone());
            }
            needed.len() < data_keys.len()
        });
        if needed.len() == data_keys.len() {
            break;
        }
    }
    needed
}

/// How many values of a column are not under their tenant's newest data key, by data key; `None`
/// stands for what is no envelope. Reads headers, and runs nothing that the table's owner wrote.
///
/// # Errors
/// `not_reencryptable` unless it is a table, with a column that can hold envelopes; as
/// [`is_newest`].
pub fn outdated(
    table: pg_sys::Oid,
    column: pg_sys::AttrNumber,
) -> Result<BTreeMap<Option<DekId>, i64>> {
    let mut counts = BTreeMap::new();
    each_outdated(table, column, |id| {
        *counts.entry(id).or_insert(0) += 1;
        Ok(true)
    })?;
    Ok(counts)
}

/// Whether there is such a value of a tenant of this registry. Looks no further than to the first.
///
/// # Errors
/// As [`outdated`].
pub fn has_outdated(table: pg_sys::Oid, column: pg_sys::AttrNumber) -> Result<bool> {
    let (mut is_there, mut of_others) = (false, BTreeSet::new());
    each_outdated(table, column, |id| {
        if let Some(id) = id.filter(|id| !of_others.contains(id)) {
            is_there = read::tenant_of_data_key(&id)?.is_some();
            of_others.insert(id);
        }
        Ok(!is_there)
    })?;
    Ok(is_there)
}

/// The data keys of such values, `None` for what is no envelope, until `goes_on` says no.
fn each_outdated(
    table: pg_sys::Oid,
    column: pg_sys::AttrNumber,
    mut goes_on: impl FnMut(Option<DekId>) -> Result<bool>,
) -> Result<()> {
    let (_open, is_protected) = open(table, column)?;
    let mut failed = None;
    table_scan::visit(table, &[column], Rows::Committed, |_, value| {
        let bytes = head(value, HEADER_MAX);
        let id = match is_protected {
            true => header(bytes).map(|header| header.dek_id),
            false => Envelope::parse(bytes).ok().map(|envelope| envelope.dek_id()),
        };
        let is_outdated = match &id {
            Some(id) => is_newest(id).map(|is_newest| !is_newest),
            // What is not sealed is the business of cmk.seal_table().
            None => Ok(!is_protected),
        };
        let next = is_outdated.and_then(|outdated| if outdated { goes_on(id) } else { Ok(true) });
        next.unwrap_or_else(|error| {
            failed = Some(error);
            false
        })
    });
    failed.map_or(Ok(()), Err)
}

/// What a value says of its keys: the data key that opens it, and the first bytes of the names of
/// the index keys that made its tokens.
pub type Keys = (DekId, Option<[u8; INDEX_KEY_ID_LEN]>, Option<[u8; INDEX_KEY_ID_LEN]>);

/// How many sealed values of a protected column have which keys. Reads headers, and runs nothing
/// that the table's owner wrote.
///
/// # Errors
/// `not_owner` for who may not read the table; `not_reencryptable` unless it is a table with such a
/// column.
pub fn sealed(table: pg_sys::Oid, column: pg_sys::AttrNumber) -> Result<BTreeMap<Keys, i64>> {
    let (relation, is_protected) = open(table, column)?;
    if !is_protected {
        return Err(Reason::NotReencryptable.into());
    }
    let select = pg_sys::ACL_SELECT as pg_sys::AclMode;
    // SAFETY: an open relation; catalog look-ups in a transaction on the main thread.
    let may_read = unsafe {
        let role = pg_sys::GetUserId();
        pg_sys::pg_class_aclcheck(relation.oid(), role, select) == pg_sys::AclResult::ACLCHECK_OK
    };
    if !may_read {
        return Err(Reason::NotOwner.into());
    }
    let mut counts = BTreeMap::new();
    table_scan::visit(table, &[column], Rows::Committed, |_, value| {
        if let Some(header) = header(head(value, HEADER_MAX)) {
            let tokens = header.tokens;
            let first = tokens.map(|tokens| tokens.first.index_key);
            let next = tokens.and_then(|tokens| tokens.next).map(|token| token.index_key);
            *counts.entry((header.dek_id, first, next)).or_insert(0) += 1;
        }
        true
    });
    Ok(counts)
}

/// A table, locked while it is open so that its columns stay as they are, and whether the column is
/// of a type of protected columns.
///
/// # Errors
/// `not_reencryptable` unless it is a table, with a column that can hold envelopes.
fn open(table: pg_sys::Oid, column: pg_sys::AttrNumber) -> Result<(PgRelation, bool)> {
    let refused = || Error::new(Reason::NotReencryptable);
    let relation = relation::open(table, pg_sys::AccessShareLock, refused)?;
    let place = usize::try_from(i32::from(column) - 1).map_err(|_| refused())?;
    let of_column = |descriptor: &PgTupleDesc<'_>| {
        descriptor.get(place).filter(|it| !it.attisdropped).map(|it| it.atttypid)
    };
    let column_type = of_column(&relation.tuple_desc()).ok_or_else(refused)?;
    // SAFETY: a catalog look-up in a transaction on the main thread.
    let base = unsafe { pg_sys::getBaseType(column_type) };
    let is_protected = catalog::types().kind(base).is_some();
    let holds_rows = relation.is_table() || relation.is_matview();
    match holds_rows && (is_protected || base == pg_sys::BYTEAOID) {
        true => Ok((relation, is_protected)),
        false => Err(refused()),
    }
}
