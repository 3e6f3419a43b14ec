//! Sorting: every value is opened once, not once for each comparison.
//!
//! What is sorted are the envelopes, so what a sort spills to disk is ciphertext. PostgreSQL lets a
//! type abbreviate a value to eight bytes while it is in memory; here these say where its plaintext
//! lies ([`Run`]). Where PostgreSQL compares the values themselves (when it merges what it has
//! spilled, and for the second key of ORDER BY), plaintexts are found by their envelope's nonce
//! ([`Memo`]). Both are bounded by `work_mem`, and zeroed when they go, as is all memory of the
//! library.

use super::compare::is_deterministic;
use super::kind::Kind;
use super::open::open;
use super::stored::Stored;
use crate::pg::call::Call;
use crate::pg::datum::content;
use crate::pg::process::ThisProcess;
use crate::pg::raw::column_function;
use crate::pg::sort_support::{self, Sorter};
use cmk_crypto::nonce::NONCE_LEN;
use cmk_error::Result;
use foldhash::fast::RandomState;
use hashbrown::HashTable;
use pgrx::pg_sys;
use std::cmp::Ordering;
use std::collections::HashMap;
use std::hash::BuildHasher;

/// What a sort keeps.
struct Sort {
    kind: Kind,
    process: ThisProcess,
    collation: pg_sys::Oid,
    run: Run,
    memo: Memo,
    /// What was compared last, abbreviated, is equal: PostgreSQL asks next for the values
    /// themselves, and need not have them opened again.
    last_was_equal: bool,
}

/// Plaintexts of the values that are in memory, one behind the other, each with its length before
/// it. Equal ones stand there once: PostgreSQL takes two values for different, without comparing
/// them, where what stands for them differs (`count(DISTINCT ...)`).
///
/// A run ends when PostgreSQL has sorted it: the next value belongs to another, and those of this
/// one are on disk.
#[derive(Default)]
struct Run {
    clear: Vec<u8>,
    /// Where each plaintext lies, found by its hash.
    places: HashTable<u64>,
    hasher: RandomState,
    is_sorted: bool,
}

const LEN: usize = size_of::<u32>();

impl Run {
    /// Where the plaintext lies.
    fn add(&mut self, clear: &[u8]) -> u64 {
        if self.is_sorted {
            *self = Self::default();
        }
        let Self { clear: all, places, hasher, .. } = self;
        let hash = hasher.hash_one(clear);
        let is_it = |at: &u64| find(all, *at) == Some(clear);
        if let Some(at) = places.find(hash, is_it) {
            return *at;
        }
        let at = all.len() as u64;
        all.extend_from_slice(&(clear.len() as u32).to_ne_bytes());
        all.extend_from_slice(clear);
        places.insert_unique(hash, at, |at| hasher.hash_one(find(all, *at).unwrap_or_default()));
        at
    }

    #[inline]
    fn find(&self, at: u64) -> &[u8] {
        find(&self.clear, at).unwrap_or_default()
    }
}

#[inline]
fn find(all: &[u8], at: u64) -> Option<&[u8]> {
    let (len, rest) = all.get(at as usize..)?.split_first_chunk::<LEN>()?;
    rest.get(..u32::from_ne_bytes(*len) as usize)
}

/// Plaintexts by the nonce of their envelope.
struct Memo {
    opened: HashMap<[u8; NONCE_LEN], Box<[u8]>, RandomState>,
    bytes: usize,
    limit: usize,
}

/// What an opened value takes beside its plaintext, about.
const OVERHEAD: usize = 64;

impl Memo {
    fn add(&mut self, nonce: &[u8; NONCE_LEN], clear: &[u8]) {
        let size = clear.len() + OVERHEAD;
        if self.bytes + size > self.limit {
            self.opened.clear();
            self.bytes = 0;
        }
        self.bytes += size;
        self.opened.insert(*nonce, clear.into());
    }

    fn clear<'a>(&'a self, value: &Stored<'a>) -> &'a [u8] {
        match value {
            Stored::Plain(plain) => plain,
            Stored::Sealed(envelope) => {
                self.opened.get(envelope.nonce()).map_or(&[], |clear| clear)
            }
        }
    }
}

impl Sort {
    /// Has the value's plaintext at hand, if it is sealed.
    fn fetch(&mut self, value: &Stored<'_>) -> Result<()> {
        let Stored::Sealed(envelope) = value else { return Ok(()) };
        if !self.memo.opened.contains_key(envelope.nonce()) {
            let clear = open(&self.process.later(), envelope)?;
            self.memo.add(envelope.nonce(), clear.as_slice());
            clear.free();
        }
        Ok(())
    }
}

impl Sorter for Sort {
    fn compare(&mut self, a: pg_sys::Datum, b: pg_sys::Datum) -> Result<Ordering> {
        if std::mem::take(&mut self.last_was_equal) {
            return Ok(Ordering::Equal);
        }
        // SAFETY: values of the type that is sorted.
        let (a, b) = unsafe { (content(a), content(b)) };
        if a == b {
            return Ok(Ordering::Equal);
        }
        let (a, b) = (Stored::parse(a)?, Stored::parse(b)?);
        self.fetch(&a)?;
        self.fetch(&b)?;
        // Room may have been made for the second by giving up the first. Then both fit.
        self.fetch(&a)?;
        self.kind.compare(self.memo.clear(&a), self.memo.clear(&b), self.collation)
    }

    fn abbreviate(&mut self, value: pg_sys::Datum) -> Result<u64> {
        // SAFETY: a value of the type that is sorted.
        Ok(match Stored::parse(unsafe { content(value) })? {
            Stored::Plain(plain) => self.run.add(plain),
            Stored::Sealed(envelope) => {
                let clear = open(&self.process.later(), &envelope)?;
                let at = self.run.add(clear.as_slice());
                clear.free();
                at
            }
        })
    }

    #[inline]
    fn compare_abbreviated(&mut self, a: u64, b: u64) -> Result<Ordering> {
        self.run.is_sorted = true;
        let order = match a == b {
            true => Ordering::Equal,
            false => self.kind.compare(self.run.find(a), self.run.find(b), self.collation)?,
        };
        self.last_was_equal = order.is_eq();
        Ok(order)
    }
}

fn set_up(kind: Kind, call: Call) -> pg_sys::Datum {
    // Values that are equal though their plaintexts differ can't be abbreviated; see [`Run`].
    let may_abbreviate = |collation| match kind {
        Kind::Text => is_deterministic(collation),
        Kind::Bytea => true,
        Kind::Jsonb => false,
    };
    sort_support::set_up(call, may_abbreviate, |collation, limit| Sort {
        kind,
        process: call.process(),
        collation,
        run: Run::default(),
        memo: Memo { opened: HashMap::default(), bytes: 0, limit },
        last_was_equal: false,
    });
    pg_sys::Datum::null()
}

column_function!(column_text_sort, |call| Ok(set_up(Kind::Text, call)));
column_function!(column_bytea_sort, |call| Ok(set_up(Kind::Bytea, call)));
column_function!(column_jsonb_sort, |call| Ok(set_up(Kind::Jsonb, call)));
