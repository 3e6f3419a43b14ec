//! Sorting: every value is opened once, not once for each comparison.
//!
//! What is sorted are the envelopes, so what a sort spills to disk is ciphertext. PostgreSQL lets a
//! type abbreviate a value to eight bytes while it is in memory; here these say where its plaintext
//! lies ([`Run`]). Where PostgreSQL compares the values themselves (when it merges what it has
//! spilled, and for the second key of ORDER BY), plaintexts are found by their envelope's nonce
//! ([`Memo`]). Both are bounded by `work_mem`, and zeroed when they go, as is all memory of the
//! library.

use super::equal::{comparable, open_comparable};
use super::kind::Kind;
use super::stored::Stored;
use crate::pg::call::Call;
use crate::pg::collation::is_deterministic;
use crate::pg::datum::content;
use crate::pg::process::ThisProcess;
use crate::pg::raw::column_function;
use crate::pg::sort_support::{self, Sorter};
use cmk_crypto::nonce::NONCE_LEN;
use cmk_error::{Error, Reason, Result};
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
/// it. Equal ones share a place: PostgreSQL takes two values for different, without comparing them,
/// where what stands for them differs (`count(DISTINCT ...)`).
///
/// A run ends when PostgreSQL has sorted it: the next value belongs to another. What doesn't fit,
/// because values are long and PostgreSQL itself holds only where they are stored, has no place;
/// its hash stands for it, and is compared by the values themselves.
struct Run {
    clear: Vec<u8>,
    /// Places by the hash of the plaintext.
    places: HashTable<u64>,
    hasher: RandomState,
    limit: usize,
    is_sorted: bool,
}

const LEN: usize = size_of::<u32>();

/// Marks what has no place.
const NOWHERE: u64 = 1 << 63;

impl Run {
    fn new(limit: usize) -> Self {
        let (places, hasher) = (HashTable::new(), RandomState::default());
        Self { clear: Vec::new(), places, hasher, limit, is_sorted: false }
    }

    /// What stands for a plaintext.
    ///
    /// # Errors
    /// `out_of_memory`.
    fn add(&mut self, clear: &[u8]) -> Result<u64> {
        if self.is_sorted {
            *self = Self::new(self.limit);
        }
        let Self { clear: all, places, hasher, .. } = self;
        let hash = hasher.hash_one(clear);
        let is_it = |at: &u64| find(all, *at) == Some(clear);
        if let Some(at) = places.find(hash, is_it) {
            return Ok(*at);
        }
        let at = all.len();
        if at + LEN + clear.len() > self.limit {
            return Ok(hash | NOWHERE);
        }
        // Room for a quarter more at a time, since doubling could take all that is left.
        let missing = (LEN + clear.len()).saturating_sub(all.capacity() - at);
        if missing > 0 {
            let out_of_memory = |_| Error::new(Reason::OutOfMemory);
            all.try_reserve_exact(LEN + clear.len() + at / 4).map_err(out_of_memory)?;
        }
        let rehash = |at: &u64| hasher.hash_one(find(all, *at).unwrap_or_default());
        places.try_reserve(1, rehash).map_err(|_| Reason::OutOfMemory)?;
        all.extend_from_slice(&(clear.len() as u32).to_ne_bytes());
        all.extend_from_slice(clear);
        let rehash = |at: &u64| hasher.hash_one(find(all, *at).unwrap_or_default());
        places.insert_unique(hash, at as u64, rehash);
        Ok(at as u64)
    }
}

/// The plaintext at a place.
#[inline]
fn find(all: &[u8], at: u64) -> Option<&[u8]> {
    let (len, rest) = all.get(usize::try_from(at).ok()?..)?.split_first_chunk::<LEN>()?;
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
    /// So that there is room for two.
    fn may_keep(&self, len: usize) -> bool {
        len + OVERHEAD <= self.limit / 2
    }

    fn has(&self, nonce: &[u8; NONCE_LEN]) -> bool {
        self.opened.contains_key(nonce)
    }

    /// # Errors
    /// `out_of_memory`.
    fn add(&mut self, nonce: &[u8; NONCE_LEN], clear: &[u8]) -> Result<()> {
        let size = clear.len() + OVERHEAD;
        if self.bytes + size > self.limit {
            self.opened.clear();
            self.bytes = 0;
        }
        let mut copy = Vec::new();
        copy.try_reserve_exact(clear.len()).map_err(|_| Reason::OutOfMemory)?;
        copy.extend_from_slice(clear);
        self.opened.try_reserve(1).map_err(|_| Reason::OutOfMemory)?;
        self.bytes += size;
        self.opened.insert(*nonce, copy.into_boxed_slice());
        Ok(())
    }

    fn clear<'a>(&'a self, value: &Stored<'a>) -> Option<&'a [u8]> {
        match value {
            Stored::Plain(plain) => Some(plain),
            Stored::Sealed(envelope) => self.opened.get(envelope.nonce()).map(|clear| &**clear),
        }
    }
}

impl Sort {
    /// Has the value's plaintext at hand, if it is sealed and not too long to be kept.
    fn fetch(&mut self, value: &Stored<'_>) -> Result<()> {
        let Stored::Sealed(envelope) = value else { return Ok(()) };
        if self.memo.may_keep(envelope.plaintext_len()) && !self.memo.has(envelope.nonce()) {
            let clear = open_comparable(&self.process.later(), envelope)?;
            self.memo.add(envelope.nonce(), clear.as_slice())?;
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
        let (stored_a, stored_b) = (Stored::parse(a)?, Stored::parse(b)?);
        self.fetch(&stored_a)?;
        self.fetch(&stored_b)?;
        // Room may have been made for the second by giving up the first.
        self.fetch(&stored_a)?;
        if let (Some(a), Some(b)) = (self.memo.clear(&stored_a), self.memo.clear(&stored_b)) {
            return self.kind.compare(a, b, self.collation);
        }
        // Too long to be kept.
        let process = self.process.later();
        let (a, b) = (comparable(&process, a)?, comparable(&process, b)?);
        let order = self.kind.compare(a.as_slice(), b.as_slice(), self.collation)?;
        a.free();
        b.free();
        Ok(order)
    }

    fn abbreviate(&mut self, value: pg_sys::Datum) -> Result<u64> {
        // SAFETY: a value of the type that is sorted.
        Ok(match Stored::parse(unsafe { content(value) })? {
            Stored::Plain(plain) => self.run.add(plain)?,
            Stored::Sealed(envelope) => {
                let clear = open_comparable(&self.process.later(), &envelope)?;
                let at = self.run.add(clear.as_slice())?;
                clear.free();
                at
            }
        })
    }

    #[inline]
    fn compare_abbreviated(&mut self, a: u64, b: u64) -> Result<Ordering> {
        let run = &mut self.run;
        run.is_sorted = true;
        let order = match (find(&run.clear, a), find(&run.clear, b)) {
            _ if a == b => Ordering::Equal,
            (Some(a), Some(b)) => self.kind.compare(a, b, self.collation)?,
            _ => Ordering::Equal,
        };
        self.last_was_equal = a == b && a & NOWHERE == 0;
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
        process: ThisProcess::of(call),
        collation,
        run: Run::new(limit),
        memo: Memo { opened: HashMap::default(), bytes: 0, limit },
        last_was_equal: false,
    });
    pg_sys::Datum::null()
}

column_function!(column_text_sort, |call| Ok(set_up(Kind::Text, call)));
column_function!(column_bytea_sort, |call| Ok(set_up(Kind::Bytea, call)));
column_function!(column_jsonb_sort, |call| Ok(set_up(Kind::Jsonb, call)));
