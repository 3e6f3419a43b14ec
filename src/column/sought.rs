//! What a comparison searches for: plaintexts, and whether a value is one of them.
//!
//! Each tenant's values have tokens of their own for a plaintext: they are made once per statement
//! and tenant, and then a row costs one look at its header. Values without tokens, and tokens that
//! don't decide, are opened. Which tenants' values are looked at, [`reach`](super::reach) says:
//! those of others are equal to nothing.

use super::equal::{are_sealed_alike, normalization};
use super::kind::Kind;
use super::open::open;
use super::reach::{Reach, Skipped};
use super::stored::Stored;
use super::{tags, tenants};
use crate::pg::call::Call;
use crate::pg::collation::is_deterministic;
use crate::pg::process::{ThisProcess, keyring};
use crate::pg::protected_row::kept;
use crate::pg::settings::values::{column_tenant, is_column_tenant};
use cmk_envelope::column::{
    ColumnEnvelope, ColumnTag, INDEX_KEY_ID_LEN, NAME_TAG_LEN, TOKEN_LEN, Token,
};
use cmk_error::{Error, Instant, Reason, Result};
use cmk_keyring::keyring::TokenFor;
use cmk_keyring::process::Process;
use cmk_keyring::tenant::Role;
use foldhash::fast::RandomState;
use pgrx::pg_sys;
use std::collections::{HashMap, HashSet};
use std::ffi::{CStr, CString};
use std::rc::Rc;

/// What is searched for, and what was found out about it. One function call site keeps it from row
/// to row; its memory is zeroed when the statement ends.
pub struct Sought {
    /// As it was passed, to see whether it still is the same.
    raw: Vec<u8>,
    tenant: Option<Vec<u8>>,
    plain: Vec<Vec<u8>>,
    /// Values of other rows.
    sealed: Vec<Vec<u8>>,
    has_null: bool,
    skipped: Skipped,
    state: Option<State>,
}

/// On whose behalf it is searched: the current role, and those that queries were started as.
type Roles = (Role, [Option<Role>; 2]);

/// What holds until the registry changes, for these roles.
struct State {
    generation: u64,
    roles: Roles,
    /// `cmk_encrypt.tenant`: it decides where the query names no tenant, and grants may be bound to
    /// it.
    setting: Option<CString>,
    reach: Reach,
    answers: HashMap<Sort, Answer, RandomState>,
}

/// What is the same for the values of a tenant and column under one index key.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Sort {
    suite: u8,
    /// Of shortened tokens.
    bits: u8,
    tenant: [u8; NAME_TAG_LEN],
    column: [u8; NAME_TAG_LEN],
    index_keys: [u8; 2 * INDEX_KEY_ID_LEN],
}

impl Sort {
    fn of(envelope: &ColumnEnvelope<'_>) -> Self {
        let header = envelope.header();
        let mut index_keys = [0; 2 * INDEX_KEY_ID_LEN];
        let (first, next) = index_keys.split_at_mut(INDEX_KEY_ID_LEN);
        if let Some(tokens) = header.tokens {
            first.copy_from_slice(&tokens.first.index_key);
            next.copy_from_slice(&tokens.last().index_key);
        }
        let bits = header.tokens.and_then(|tokens| tokens.first.bits(tokens.rule));
        Self {
            suite: header.suite,
            bits: bits.unwrap_or(0),
            tenant: header.tenant.0,
            column: header.column.0,
            index_keys,
        }
    }
}

enum Answer {
    /// Nobody asked about these tenants' values.
    Outside,
    /// Equal if the token of this index key is one of these, or then to be opened.
    Tokens {
        index_key: [u8; INDEX_KEY_ID_LEN],
        tokens: HashSet<[u8; TOKEN_LEN], RandomState>,
        decide: bool,
        until: Instant,
    },
    /// Only the plaintext tells.
    Open,
}

/// # Errors
/// `out_of_memory`, which must not end the server.
fn copy(bytes: &[u8]) -> Result<Vec<u8>> {
    let mut copy = Vec::new();
    copy.try_reserve_exact(bytes.len()).map_err(|_| Reason::OutOfMemory)?;
    copy.extend_from_slice(bytes);
    Ok(copy)
}

/// Values that are searched for, as an argument has them; `None` for null.
pub type Values<'a> = Vec<Option<&'a [u8]>>;

impl Sought {
    /// # Errors
    /// `not_an_envelope`, `unknown_suite`, `out_of_memory`.
    fn new(raw: &[u8], tenant: Option<&[u8]>, values: Values<'_>) -> Result<Self> {
        let (raw, tenant) = (copy(raw)?, tenant.map(copy).transpose()?);
        let (plain, sealed) = (Vec::new(), Vec::new());
        let (has_null, skipped, state) = (false, Skipped::default(), None);
        let mut sought = Self { raw, tenant, plain, sealed, has_null, skipped, state };
        for value in values {
            match value.map(|value| Ok::<_, Error>((value, Stored::parse(value)?))).transpose()? {
                None => sought.has_null = true,
                Some((_, Stored::Plain(plain))) => sought.plain.push(copy(plain)?),
                Some((value, Stored::Sealed(_))) => sought.sealed.push(copy(value)?),
            }
        }
        Ok(sought)
    }

    /// What this call searches for, kept from the last row if it is the same.
    ///
    /// # Errors
    /// `not_an_envelope`, `unknown_suite`; those of `use_it`.
    pub fn with<'a, R>(
        call: Call,
        raw: &'a [u8],
        tenant: Option<&'a [u8]>,
        read: impl FnOnce() -> Result<Values<'a>>,
        use_it: impl FnOnce(&mut Self) -> Result<R>,
    ) -> Result<R> {
        // What else calls keeps its call state for the session, which plaintext may not last for.
        if !call.is_of_expression() {
            return use_it(&mut Self::new(raw, tenant, read()?)?);
        }
        let sought = kept(call, |_| Ok(None::<Self>))?;
        let same = sought.as_ref().filter(|it| it.raw == raw && it.tenant.as_deref() == tenant);
        if same.is_none() {
            *sought = Some(Self::new(raw, tenant, read()?)?);
        }
        match sought {
            Some(sought) => use_it(sought),
            None => Err(Reason::NullArgument.into()),
        }
    }

    /// Whether a value is one of these; `None` if it is none and one of these is null.
    ///
    /// # Errors
    /// What opening it, or making tokens, fails with.
    pub fn has(
        &mut self,
        kind: Kind,
        process: &ThisProcess,
        value: &[u8],
        collation: pg_sys::Oid,
    ) -> Result<Option<bool>> {
        let found = match Stored::parse(value)? {
            Stored::Plain(plain) => self.has_plain(kind, process, value, plain, collation)?,
            Stored::Sealed(envelope) => {
                self.has_sealed(kind, process, value, &envelope, collation)?
            }
        };
        Ok((found || !self.has_null).then_some(found))
    }

    fn has_plain(
        &mut self,
        kind: Kind,
        process: &ThisProcess,
        value: &[u8],
        plain: &[u8],
        collation: pg_sys::Oid,
    ) -> Result<bool> {
        for sought in &self.plain {
            if kind.are_equal(sought, plain, collation)? {
                return Ok(true);
            }
        }
        if self.sealed.is_empty() {
            return Ok(false);
        }
        let mut one = Self::new(value, self.tenant.as_deref(), vec![Some(value)])?;
        for sought in &self.sealed {
            if one.has(kind, process, sought, collation)? == Some(true) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn has_sealed(
        &mut self,
        kind: Kind,
        process: &ThisProcess,
        value: &[u8],
        envelope: &ColumnEnvelope<'_>,
        collation: pg_sys::Oid,
    ) -> Result<bool> {
        for sought in &self.sealed {
            if sought == value {
                return Ok(true);
            }
            let sought = ColumnEnvelope::parse(sought)?;
            if are_sealed_alike(kind, process, &sought, envelope, collation)? {
                return Ok(true);
            }
        }
        if self.plain.is_empty() {
            return Ok(false);
        }
        let by_token = kind == Kind::Text && is_deterministic(collation);
        let generation = process.generation();
        let roles = (process.role(), process.starters());
        let same = |state: &State| {
            (state.generation, state.roles) == (generation, roles)
                && is_column_tenant(state.setting.as_deref().map(CStr::to_bytes))
        };
        let state = match &mut self.state {
            Some(state) if same(state) => state,
            state => {
                let reach = Reach::of(process, self.tenant.as_deref())?;
                let (setting, answers) = (column_tenant(), HashMap::default());
                state.insert(State { generation, roles, setting, reach, answers })
            }
        };
        let sort = Sort::of(envelope);
        let fresh = |answer: &Answer| match answer {
            Answer::Tokens { until, .. } => process.now() < *until,
            Answer::Outside | Answer::Open => true,
        };
        if !state.answers.get(&sort).is_some_and(fresh) {
            let answer = state.ask(process, envelope, by_token, &self.plain, &mut self.skipped)?;
            state.answers.insert(sort, answer);
        }
        match state.answers.get(&sort) {
            None | Some(Answer::Outside) => return Ok(false),
            Some(Answer::Tokens { index_key, tokens, decide, .. }) => {
                let token = envelope.tokens().and_then(|tokens| tokens.of(*index_key));
                let is_in = token.is_some_and(|token| tokens.contains(&token.value));
                if !is_in || *decide {
                    return Ok(is_in);
                }
            }
            Some(Answer::Open) => {}
        }
        let opened = match open(process, envelope) {
            Ok(clear) => clear,
            Err(error) => {
                let tenant = tenants::of(&envelope.dek_id())?;
                return state.reach.leave_out(&tenant, error, &mut self.skipped).map(|()| false);
            }
        };
        let rule = normalization(envelope);
        let is = |sought: &Vec<u8>| {
            let (sought, opened) = (rule.apply(sought)?, rule.apply(opened.as_slice())?);
            kind.are_equal(&sought, &opened, collation)
        };
        let mut found = Ok(false);
        for sought in &self.plain {
            found = is(sought);
            if !matches!(found, Ok(false)) {
                break;
            }
        }
        opened.free();
        found
    }
}

impl State {
    /// How values of an envelope's sort are told from what is searched for.
    ///
    /// # Errors
    /// Those of making tokens, unless the reach leaves the tenant out then.
    #[cold]
    fn ask(
        &mut self,
        process: &ThisProcess,
        envelope: &ColumnEnvelope<'_>,
        by_token: bool,
        plain: &[Vec<u8>],
        skipped: &mut Skipped,
    ) -> Result<Answer> {
        let tenant: Rc<str> = match &self.reach {
            Reach::Tenant(name) if tags::of_tenant(name.as_bytes()) != envelope.tenant_tag() => {
                return Ok(Answer::Outside);
            }
            Reach::Tenant(name) => name.as_str().into(),
            Reach::Granted => tenants::of(&envelope.dek_id())?,
        };
        let Some(tokens) = envelope.tokens().filter(|_| by_token) else { return Ok(Answer::Open) };
        let column = ColumnTag(envelope.column_tag().0);
        let asked = keyring().with_keys_in_use(process, || {
            let known = keyring().look_at(process, &tenant, |tenant| {
                let known = |token: Token| tenant.index_key(token.index_key).map(|id| (token, id));
                Ok(known(tokens.first).or_else(|| known(tokens.next?)))
            })?;
            // Without the index key, the data key still tells.
            let Some((example, key)) = known else { return Ok(Answer::Open) };
            let (mut made, mut until) = (HashSet::default(), Instant::MAX);
            for plain in plain {
                let normalized = tokens.rule.normalization.apply(plain)?;
                let key = (key, TokenFor::Searching);
                let (token, good_until) =
                    keyring().token(process, &tenant, key, column, &normalized)?;
                let token = match example.bits(tokens.rule) {
                    Some(bits) => token.shortened(bits),
                    None => token,
                };
                made.insert(token.value);
                until = until.min(good_until);
            }
            let decide = !tokens.rule.is_shortened;
            Ok(Answer::Tokens { index_key: example.index_key, tokens: made, decide, until })
        });
        asked.or_else(|error| {
            self.reach.leave_out(&tenant, error, skipped).map(|()| Answer::Outside)
        })
    }
}
