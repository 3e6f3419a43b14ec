//! Index keys: which are in use, who may make tokens with them, and that neither kind of data key
//! is taken for the other.

use super::process::{FakeProcess, SECOND, TTL, data_key, open, seal};
use crate::keyring::{Keyring, TokenFor};
use crate::tenant::{DataKey, DataKeyState, Grant, Right, Tenant, TenantState, index_key_id};
use cmk_crypto::commitment::DekId;
use cmk_crypto::key::SecretKey;
use cmk_crypto::token::TokenKey;
use cmk_envelope::column::{ColumnTag, Token};
use cmk_error::{Instant, Reason};
use cmk_kms::Purpose;

const COLUMN: ColumnTag = ColumnTag([3; 8]);

fn index_key(version: i32, state: DataKeyState) -> DataKey {
    DataKey { purpose: Purpose::Index, state, ..data_key("acme", version) }
}

fn add(tenant: &mut Tenant, key: DataKey) {
    tenant.last_version = tenant.last_version.max(key.version);
    tenant.data_keys.push(key);
}

/// A tenant with a data key, and an index key under which tokens are made.
fn acme() -> (Keyring, FakeProcess, DataKey) {
    let (process, key) = (FakeProcess::new(&["acme"]), index_key(2, DataKeyState::Current));
    process.change("acme", |tenant| add(tenant, key.clone()));
    (Keyring::new(), process, key)
}

fn id(key: &DataKey) -> DekId {
    key.commitment.dek_id()
}

fn token(
    keyring: &Keyring,
    process: &FakeProcess,
    key: &DataKey,
    purpose: TokenFor,
) -> Result<(Token, Instant), Reason> {
    let made = keyring.token(process, "acme", (id(key), purpose), COLUMN, b"value");
    made.map_err(|error| error.reason)
}

#[test]
fn a_token_is_made_under_its_index_key_and_names_it() {
    let (keyring, process, key) = acme();
    let (made, until) = token(&keyring, &process, &key, TokenFor::Searching).unwrap();
    let raw = SecretKey::from_slice(key.wrapped.as_deref().unwrap()).unwrap();
    let value = TokenKey::new(&raw).token(&COLUMN.0, b"value");
    assert_eq!(made, Token { index_key: index_key_id(&id(&key)), value });
    assert_eq!(until, process.now.get() + TTL * SECOND);
}

#[test]
fn one_call_of_kms_serves_all_tokens_until_the_ttl() {
    let (keyring, process, key) = acme();
    let first = token(&keyring, &process, &key, TokenFor::Searching).unwrap();
    process.now.set(process.now.get() + TTL * SECOND - 1);
    assert_eq!(token(&keyring, &process, &key, TokenFor::Sealing), Ok(first));
    assert_eq!(process.calls.get(), 1);
    process.outage.set(Some(Reason::KmsTimeout));
    process.now.set(process.now.get() + 1);
    assert_eq!(token(&keyring, &process, &key, TokenFor::Searching), Err(Reason::KmsTimeout));
}

#[test]
fn processes_share_an_index_key_as_they_share_data_keys() {
    let (keyring, process, key) = acme();
    let (process, other) = (process.sharing(4), Keyring::new());
    let made = token(&keyring, &process, &key, TokenFor::Searching).unwrap();
    process.be(2);
    assert_eq!(token(&other, &process, &key, TokenFor::Searching), Ok(made));
    assert_eq!(process.calls.get(), 1);
}

#[test]
fn each_purpose_takes_its_grant() {
    let (keyring, process, key) = acme();
    for (encrypt, decrypt) in [(false, false), (true, false), (false, true), (true, true)] {
        process
            .grant
            .set(Grant { encrypt: Right::of(encrypt, false), decrypt: Right::of(decrypt, false) });
        process.change("acme", |_| ());
        for (purpose, allowed) in [
            (TokenFor::Sealing, encrypt),
            (TokenFor::Searching, decrypt),
            (TokenFor::Either, encrypt || decrypt),
        ] {
            let made = token(&keyring, &process, &key, purpose).map(|_| ());
            let expected = if allowed { Ok(()) } else { Err(Reason::NoGrant) };
            assert_eq!(made, expected, "{purpose:?} with {encrypt} {decrypt}");
        }
    }
}

#[test]
fn an_index_key_goes_dark_with_its_tenant() {
    let (keyring, process, key) = acme();
    token(&keyring, &process, &key, TokenFor::Searching).unwrap();
    process.change("acme", |tenant| tenant.state = TenantState::Suspended);
    assert_eq!(token(&keyring, &process, &key, TokenFor::Searching), Err(Reason::TenantSuspended));
    process.change("acme", |tenant| (tenant.state, tenant.epoch) = (TenantState::Active, 1));
    process.outage.set(Some(Reason::KeyDisabled));
    assert_eq!(token(&keyring, &process, &key, TokenFor::Searching), Err(Reason::KeyDisabled));
    // The customer managed key is what was found revoked, so values are dark, too.
    let sealed = seal(&keyring, &process, "acme").map_err(|error| error.reason);
    assert_eq!(sealed, Err(Reason::KeyDisabled));
}

#[test]
fn neither_kind_of_data_key_is_taken_for_the_other() {
    let (keyring, process, key) = acme();
    token(&keyring, &process, &key, TokenFor::Searching).unwrap();
    // What seals is the data key, also where only the index key is at hand.
    let mut sealed = seal(&keyring, &process, "acme").unwrap();
    let values = process.registered("acme").data_keys[0].clone();
    assert_eq!(sealed[2..18], id(&values).0);
    let made = token(&keyring, &process, &values, TokenFor::Searching);
    assert_eq!(made, Err(Reason::UnknownDataKey));
    sealed[2..18].copy_from_slice(&id(&key).0);
    assert_eq!(open(&keyring, &process, "acme", &sealed), Err(Reason::UnknownDataKey));
}

#[test]
fn a_change_of_the_registry_leaves_an_index_key_at_hand() {
    let (keyring, process, key) = acme();
    token(&keyring, &process, &key, TokenFor::Searching).unwrap();
    process.change("acme", |tenant| add(tenant, data_key("acme", 3)));
    token(&keyring, &process, &key, TokenFor::Searching).unwrap();
    assert_eq!(process.calls.get(), 1);
    // Destroyed, it makes no token any more.
    process.change("acme", |tenant| {
        let key = tenant.data_keys.iter_mut().find(|key| key.purpose == Purpose::Index).unwrap();
        (key.state, key.wrapped) = (DataKeyState::Destroyed, None);
    });
    assert_eq!(token(&keyring, &process, &key, TokenFor::Searching), Err(Reason::TenantShredded));
}

#[test]
fn what_takes_index_keys_looks_again_when_one_was_destroyed_meanwhile() {
    let (keyring, process, key) = acme();
    let next = index_key(3, DataKeyState::Next);
    process.change("acme", |tenant| add(tenant, next.clone()));
    let both = |cancels: bool, tries: &mut u32| {
        keyring.with_keys_in_use(&process, || {
            *tries += 1;
            let keys = keyring.look_at(&process, "acme", |tenant| tenant.index_keys())?;
            if cancels && *tries == 1 {
                process.change("acme", |tenant| {
                    let next = tenant.data_keys.iter_mut().find(|key| key.version == 3).unwrap();
                    (next.state, next.wrapped) = (DataKeyState::Destroyed, None);
                });
            }
            let token = |id| {
                let key = (id, TokenFor::Searching);
                keyring.token(&process, "acme", key, COLUMN, b"x")
            };
            keys.searched().map(|id| token(id).map(|_| id)).collect::<Result<Vec<_>, _>>()
        })
    };
    let mut tries = 0;
    assert_eq!(both(false, &mut tries).unwrap(), [id(&key), id(&next)]);
    let mut tries = 0;
    assert_eq!(both(true, &mut tries).unwrap(), [id(&key)]);
    assert_eq!(tries, 2);
    // What stays destroyed is said at once.
    process.change("acme", |tenant| {
        tenant.data_keys.iter_mut().for_each(|key| {
            (key.state, key.wrapped) = (DataKeyState::Destroyed, None);
        })
    });
    let mut tries = 0;
    assert_eq!(both(false, &mut tries).unwrap_err().reason, Reason::TenantShredded);
    assert_eq!(tries, 1);
}

#[test]
fn warming_fetches_index_keys_too() {
    let (keyring, process, key) = acme();
    assert_eq!(keyring.warm(&process, "acme").unwrap(), 2);
    assert_eq!(process.calls.get(), 2);
    token(&keyring, &process, &key, TokenFor::Searching).unwrap();
    assert_eq!(process.calls.get(), 2);
}

#[test]
fn what_a_token_takes_is_checked_without_an_index_key() {
    let (keyring, process) = (Keyring::new(), FakeProcess::new(&["acme"]));
    let require =
        |tenant, purpose| keyring.require(&process, tenant, purpose).map_err(|error| error.reason);
    assert_eq!(require("acme", TokenFor::Searching), Ok(()));
    assert_eq!(process.calls.get(), 1);
    process.grant.set(Grant { encrypt: Right::Always, decrypt: Right::Never });
    process.change("acme", |tenant| tenant.state = TenantState::Suspended);
    assert_eq!(require("acme", TokenFor::Searching), Err(Reason::NoGrant));
    assert_eq!(require("acme", TokenFor::Sealing), Err(Reason::TenantSuspended));
    assert_eq!(require("bolt", TokenFor::Either), Err(Reason::UnknownTenant));
}

#[test]
fn which_index_keys_are_in_use_the_registry_says() {
    let mut tenant = FakeProcess::new(&["acme"]).registered("acme");
    let reason = |tenant: &Tenant| tenant.index_keys().unwrap_err().reason;
    assert_eq!(reason(&tenant), Reason::NoIndexKey);
    tenant.last_version = 2;
    assert_eq!(reason(&tenant), Reason::DataKeysMissing);
    tenant.last_version = 1;

    let [oldest, older] = [2, 3].map(|version| index_key(version, DataKeyState::Retired));
    let (current, next) = (index_key(4, DataKeyState::Current), index_key(5, DataKeyState::Next));
    add(&mut tenant, older.clone());
    add(&mut tenant, oldest);
    add(&mut tenant, current.clone());
    let keys = tenant.index_keys().unwrap();
    assert_eq!(keys.written(), (id(&current), None));
    assert_eq!(keys.other(), Some(id(&older)));

    add(&mut tenant, next.clone());
    let keys = tenant.index_keys().unwrap();
    assert_eq!(keys.written(), (id(&current), Some(id(&next))));
    assert_eq!(keys.other(), Some(id(&next)));
    // Values are never sealed under one, nor opened.
    assert_eq!(tenant.current_data_key().unwrap().purpose, Purpose::Values);
    assert!(tenant.data_key(id(&current)).is_err());
    assert_eq!(tenant.index_key(index_key_id(&id(&next))), Some(id(&next)));
    assert_eq!(tenant.index_key(index_key_id(&id(&tenant.data_keys[0]))), None);

    for key in &mut tenant.data_keys {
        (key.state, key.wrapped) = (DataKeyState::Destroyed, None);
    }
    assert_eq!(reason(&tenant), Reason::TenantShredded);
}
