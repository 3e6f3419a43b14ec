//! Sorting: every value is opened once, not once for each comparison.
//!
//! The sort moves the envelopes, so what it spills to disk is ciphertext. The plaintexts stand
//! beside, found by their envelope's nonce, within `work_mem`; they are zeroed with the sort.

use super::kind::Kind;
use super::open::open;
use super::stored::Stored;
use crate::pg::call::Call;
use crate::pg::datum::content;
use crate::pg::error_context;
use crate::pg::process::ThisProcess;
use crate::pg::raw::column_function;
use crate::pg::report::IntoSql;
use cmk_crypto::nonce::NONCE_LEN;
use cmk_error::Result;
use foldhash::fast::RandomState;
use pgrx::{PgMemoryContexts, pg_guard, pg_sys};
use std::cmp::Ordering;
use std::collections::HashMap;

/// What a sort keeps.
struct Sort {
    kind: Kind,
    process: ThisProcess,
    /// The allocator zeroes them when they are freed.
    opened: HashMap<[u8; NONCE_LEN], Box<[u8]>, RandomState>,
    bytes: usize,
    limit: usize,
    /// For what a comparison allocates, which the sort's own context would keep until its end.
    scratch: pg_sys::MemoryContext,
}

/// What an opened value takes beside its plaintext, about.
const OVERHEAD: usize = 64;

impl Sort {
    /// Has the value's plaintext at hand, if it is sealed.
    fn fetch(&mut self, value: &Stored<'_>) -> Result<()> {
        let Stored::Sealed(envelope) = value else { return Ok(()) };
        if self.opened.contains_key(envelope.nonce()) {
            return Ok(());
        }
        let clear = open(&self.process.later(), envelope)?;
        let size = clear.as_slice().len() + OVERHEAD;
        if self.bytes + size > self.limit {
            self.opened.clear();
            self.bytes = 0;
        }
        self.bytes += size;
        self.opened.insert(*envelope.nonce(), clear.as_slice().into());
        clear.free();
        Ok(())
    }

    fn clear<'a>(&'a self, value: &Stored<'a>) -> &'a [u8] {
        match value {
            Stored::Plain(plain) => plain,
            Stored::Sealed(envelope) => {
                self.opened.get(envelope.nonce()).map_or(&[], |clear| clear)
            }
        }
    }

    fn compare(&mut self, a: &[u8], b: &[u8], collation: pg_sys::Oid) -> Result<Ordering> {
        if a == b {
            return Ok(Ordering::Equal);
        }
        let (a, b) = (Stored::parse(a)?, Stored::parse(b)?);
        self.fetch(&a)?;
        self.fetch(&b)?;
        // Room may have been made for the second by giving up the first. Then both fit.
        self.fetch(&a)?;
        self.kind.compare(self.clear(&a), self.clear(&b), collation)
    }

    /// The first bytes of a plaintext, as a number that is ordered as they are.
    fn prefix(&mut self, value: &[u8]) -> Result<u64> {
        let value = Stored::parse(value)?;
        self.fetch(&value)?;
        let clear = self.clear(&value);
        let mut prefix = [0; size_of::<u64>()];
        let len = clear.len().min(prefix.len());
        prefix[..len].copy_from_slice(&clear[..len]);
        Ok(u64::from_be_bytes(prefix))
    }
}

/// Runs `work` on the sort, with its scratch memory.
///
/// # Safety
/// `support` was set up by [`set_up`].
unsafe fn in_sort<R>(support: pg_sys::SortSupport, work: impl FnOnce(&mut Sort) -> Result<R>) -> R {
    // SAFETY: the caller's promise. An ERROR leaves the current context to whoever catches it.
    unsafe {
        let sort = &mut *(*support).ssup_extra.cast::<Sort>();
        let scratch = sort.scratch;
        let before = pg_sys::MemoryContextSwitchTo(scratch);
        let done = work(sort);
        if done.is_err() {
            error_context::hide();
        }
        let done = done.or_raise();
        pg_sys::MemoryContextSwitchTo(before);
        if !(*scratch).isReset {
            pg_sys::MemoryContextReset(scratch);
        }
        done
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn compare(
    a: pg_sys::Datum,
    b: pg_sys::Datum,
    support: pg_sys::SortSupport,
) -> i32 {
    // SAFETY: called by a sort that was set up here, with values of the type.
    unsafe {
        let collation = (*support).ssup_collation;
        in_sort(support, |sort| sort.compare(content(a), content(b), collation)) as i32
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn abbreviate(
    value: pg_sys::Datum,
    support: pg_sys::SortSupport,
) -> pg_sys::Datum {
    // SAFETY: as in compare.
    pg_sys::Datum::from(unsafe { in_sort(support, |sort| sort.prefix(content(value))) })
}

unsafe extern "C-unwind" fn compare_prefixes(
    a: pg_sys::Datum,
    b: pg_sys::Datum,
    _support: pg_sys::SortSupport,
) -> i32 {
    a.value().cmp(&b.value()) as i32
}

/// Values that begin alike cost a comparison of numbers more, which is nothing beside opening them.
unsafe extern "C-unwind" fn never_abort(_count: i32, _support: pg_sys::SortSupport) -> bool {
    false
}

fn set_up(kind: Kind, call: Call) {
    let support = call.datum(0).cast_mut_ptr::<pg_sys::SortSupportData>();
    // SAFETY: PostgreSQL passes what it wants filled in; the context outlives the sort.
    unsafe {
        let limit = (pg_sys::work_mem as usize).saturating_mul(1024);
        let opened = HashMap::default();
        let scratch = pg_sys::AllocSetContextCreateExtended(
            (*support).ssup_cxt,
            c"cmk_encrypt sort".as_ptr(),
            pg_sys::ALLOCSET_SMALL_MINSIZE as usize,
            pg_sys::ALLOCSET_SMALL_INITSIZE as usize,
            pg_sys::ALLOCSET_DEFAULT_MAXSIZE as usize,
        );
        let sort = Sort { kind, process: call.process(), opened, bytes: 0, limit, scratch };
        let mut context = PgMemoryContexts::For((*support).ssup_cxt);
        (*support).ssup_extra = context.leak_and_drop_on_delete(sort).cast();
        (*support).comparator = Some(compare);
        let is_by_bytes = kind == Kind::Text
            && (*support).ssup_collation == pg_sys::C_COLLATION_OID
            || kind == Kind::Bytea;
        if (*support).abbreviate && is_by_bytes {
            (*support).comparator = Some(compare_prefixes);
            (*support).abbrev_converter = Some(abbreviate);
            (*support).abbrev_abort = Some(never_abort);
            (*support).abbrev_full_comparator = Some(compare);
        }
    }
}

column_function!(column_text_sort, |call| {
    set_up(Kind::Text, call);
    Ok(pg_sys::Datum::null())
});
column_function!(column_bytea_sort, |call| {
    set_up(Kind::Bytea, call);
    Ok(pg_sys::Datum::null())
});
column_function!(column_jsonb_sort, |call| {
    set_up(Kind::Jsonb, call);
    Ok(pg_sys::Datum::null())
});
