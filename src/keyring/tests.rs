use super::*;
use crate::crypto::commitment::Commitment;
use crate::envelope::OVERHEAD;
use crate::kms::Custody;
use crate::kms::arn::KeyUri;
use crate::registry::{DataKeyState, TenantState};
use std::cell::Cell;
use std::collections::HashMap;

const SECOND: u64 = 1_000_000_000;
const TTL: u64 = 300;

/// A host whose registry, clock and KMS are plain fields.
struct FakeHost {
    now: Cell<Instant>,
    generation: Cell<u64>,
    tenants: RefCell<HashMap<String, Tenant>>,
    permissions: Cell<Permissions>,
    outage: Cell<Option<Reason>>,
    calls: Cell<u32>,
    /// Runs once, in the middle of the next KMS call.
    during_call: RefCell<Option<Happening>>,
    capacity: usize,
}

type Happening = Box<dyn FnOnce(&FakeHost)>;

/// "Wraps" a key as itself.
struct FakeKms<'a>(&'a FakeHost);

impl Kms for FakeKms<'_> {
    fn generate(&self, _: &Custody, _: &EncryptionContext<'_>) -> Result<Vec<u8>> {
        unreachable!("reads never make keys")
    }

    fn unwrap(&self, _: &Custody, wrapped: &[u8], _: &EncryptionContext<'_>) -> Result<SecretKey> {
        self.0.calls.set(self.0.calls.get() + 1);
        if let Some(happen) = self.0.during_call.take() {
            happen(self.0);
        }
        match self.0.outage.get() {
            Some(reason) => Err(reason.into()),
            None => SecretKey::from_slice(wrapped),
        }
    }
}

impl Host for FakeHost {
    fn now(&self) -> Instant {
        self.now.get()
    }
    fn process_id(&self) -> u32 {
        1
    }
    fn role(&self) -> Role {
        Role(10)
    }
    fn generation(&self) -> u64 {
        self.generation.get()
    }
    fn policy(&self) -> Policy {
        Policy { ttl: TTL * SECOND, failure_ttl: 4 * SECOND, capacity: self.capacity }
    }
    fn tenant(&self, name: &str) -> Result<Option<Tenant>> {
        Ok(self.tenants.borrow().get(name).cloned())
    }
    fn permissions(&self, _: Role, _: &str) -> Result<Permissions> {
        Ok(self.permissions.get())
    }
    fn kms(&self) -> impl Kms {
        FakeKms(self)
    }
}

impl FakeHost {
    fn new(tenants: &[&str]) -> Self {
        let host = Self {
            now: Cell::new(1000 * SECOND),
            generation: Cell::new(1),
            tenants: RefCell::default(),
            permissions: Cell::new(Permissions { encrypt: true, decrypt: true }),
            outage: Cell::new(None),
            calls: Cell::new(0),
            during_call: RefCell::new(None),
            capacity: 10,
        };
        for name in tenants {
            let tenant = Tenant {
                name: (*name).into(),
                state: TenantState::Active,
                epoch: 0,
                custody: Custody { key: KeyUri::parse("local:k").unwrap(), role: None },
                data_keys: vec![data_key(name, 1)],
            };
            host.tenants.borrow_mut().insert((*name).into(), tenant);
        }
        host
    }

    fn change(&self, name: &str, change: impl FnOnce(&mut Tenant)) {
        change(self.tenants.borrow_mut().get_mut(name).unwrap());
        self.generation.set(self.generation.get() + 1);
    }

    fn pass(&self, seconds: u64) {
        self.now.set(self.now.get() + seconds * SECOND);
    }
}

fn data_key(tenant: &str, version: i32) -> DataKey {
    let dek = SecretKey::generate().unwrap();
    DataKey {
        version,
        state: DataKeyState::Current,
        commitment: Commitment::to(&dek, tenant.as_bytes()),
        wrapped: Some(dek.expose_secret().as_slice().into()),
    }
}

fn seal(keyring: &Keyring, host: &FakeHost, tenant: &str) -> Result<Vec<u8>> {
    let mut out = vec![0; 5 + OVERHEAD];
    keyring.seal(host, tenant, b"", b"value", &mut out).map(|()| out)
}

fn open(keyring: &Keyring, host: &FakeHost, tenant: &str, bytes: &[u8]) -> Result<Vec<u8>, Reason> {
    let envelope = Envelope::parse(bytes).unwrap();
    let mut out = vec![0; envelope.plaintext_len()];
    let done = keyring.open(host, tenant, b"", &envelope, &mut out);
    done.map(|()| out).map_err(|error| error.reason)
}

#[test]
fn one_call_serves_until_the_hard_ttl_and_not_a_nanosecond_longer() {
    let (keyring, host) = (Keyring::new(), FakeHost::new(&["acme"]));
    let sealed = seal(&keyring, &host, "acme").unwrap();
    host.outage.set(Some(Reason::KmsTimeout));
    host.now.set(host.now.get() + TTL * SECOND - 1);
    assert_eq!(open(&keyring, &host, "acme", &sealed).unwrap(), b"value");
    assert_eq!(host.calls.get(), 1);
    host.now.set(host.now.get() + 1);
    assert_eq!(open(&keyring, &host, "acme", &sealed), Err(Reason::KmsTimeout));
}

#[test]
fn the_ttl_counts_from_the_start_of_the_unwrap() {
    let (keyring, host) = (Keyring::new(), FakeHost::new(&["acme"]));
    *host.during_call.borrow_mut() = Some(Box::new(|host| host.pass(TTL - 1)));
    let sealed = seal(&keyring, &host, "acme").unwrap();
    host.pass(1);
    open(&keyring, &host, "acme", &sealed).unwrap();
    assert_eq!(host.calls.get(), 2);
}

#[test]
fn an_answer_that_took_longer_than_the_ttl_is_not_used() {
    let (keyring, host) = (Keyring::new(), FakeHost::new(&["acme"]));
    *host.during_call.borrow_mut() = Some(Box::new(|host| host.pass(TTL)));
    assert_eq!(seal(&keyring, &host, "acme").unwrap_err().reason, Reason::KmsTimeout);
    assert_eq!(host.calls.get(), 1);
}

#[test]
fn a_revoked_key_purges_every_data_key_of_its_tenant_only() {
    let (keyring, host) = (Keyring::new(), FakeHost::new(&["acme", "globex"]));
    let old = seal(&keyring, &host, "acme").unwrap();
    let other = seal(&keyring, &host, "globex").unwrap();
    host.change("acme", |tenant| {
        tenant.data_keys[0].state = DataKeyState::Retired;
        tenant.data_keys.push(data_key("acme", 2));
    });
    host.outage.set(Some(Reason::KeyDisabled));
    assert_eq!(seal(&keyring, &host, "acme").unwrap_err().reason, Reason::KeyDisabled);
    assert_eq!(open(&keyring, &host, "acme", &old), Err(Reason::KeyDisabled));
    open(&keyring, &host, "globex", &other).unwrap();
}

#[test]
fn an_unreachable_kms_leaves_cached_keys_alone() {
    let (keyring, host) = (Keyring::new(), FakeHost::new(&["acme"]));
    let old = seal(&keyring, &host, "acme").unwrap();
    host.change("acme", |tenant| {
        tenant.data_keys[0].state = DataKeyState::Retired;
        tenant.data_keys.push(data_key("acme", 2));
    });
    host.outage.set(Some(Reason::KmsUnreachable));
    assert_eq!(seal(&keyring, &host, "acme").unwrap_err().reason, Reason::KmsUnreachable);
    open(&keyring, &host, "acme", &old).unwrap();
}

#[test]
fn a_failure_is_remembered_for_a_while() {
    let (keyring, host) = (Keyring::new(), FakeHost::new(&["acme"]));
    host.outage.set(Some(Reason::KeyAccessDenied));
    for _ in 0..10 {
        assert_eq!(seal(&keyring, &host, "acme").unwrap_err().reason, Reason::KeyAccessDenied);
    }
    assert_eq!(host.calls.get(), 1);
    host.outage.set(None);
    host.pass(6);
    seal(&keyring, &host, "acme").unwrap();
}

#[test]
fn a_tampered_row_fails_alone_and_is_asked_for_once() {
    let (keyring, host) = (Keyring::new(), FakeHost::new(&["acme"]));
    let good = seal(&keyring, &host, "acme").unwrap();
    host.change("acme", |tenant| {
        tenant.data_keys[0].state = DataKeyState::Retired;
        let mut bad = data_key("acme", 2);
        bad.wrapped = data_key("acme", 3).wrapped;
        tenant.data_keys.push(bad);
    });
    for _ in 0..3 {
        assert_eq!(seal(&keyring, &host, "acme").unwrap_err().reason, Reason::CommitmentMismatch);
    }
    assert_eq!(host.calls.get(), 2);
    open(&keyring, &host, "acme", &good).unwrap();
}

#[test]
fn an_eviction_forgets_keys_and_failures() {
    let (keyring, host) = (Keyring::new(), FakeHost::new(&["acme"]));
    seal(&keyring, &host, "acme").unwrap();
    host.change("acme", |tenant| tenant.epoch += 1);
    host.outage.set(Some(Reason::KeyDisabled));
    assert!(seal(&keyring, &host, "acme").is_err());
    host.outage.set(None);
    host.change("acme", |tenant| tenant.epoch += 1);
    seal(&keyring, &host, "acme").unwrap();
    assert_eq!(host.calls.get(), 3);
}

#[test]
fn a_change_during_the_unwrap_is_seen_before_the_key_is_used() {
    let (keyring, host) = (Keyring::new(), FakeHost::new(&["acme"]));
    *host.during_call.borrow_mut() = Some(Box::new(|host| {
        host.change("acme", |tenant| tenant.state = TenantState::Suspended);
    }));
    assert_eq!(seal(&keyring, &host, "acme").unwrap_err().reason, Reason::TenantSuspended);
}

#[test]
fn permission_is_checked_on_cache_hits_and_without_a_call() {
    let (keyring, host) = (Keyring::new(), FakeHost::new(&["acme"]));
    let sealed = seal(&keyring, &host, "acme").unwrap();
    host.permissions.set(Permissions { encrypt: true, decrypt: false });
    host.change("acme", |_| {});
    assert_eq!(open(&keyring, &host, "acme", &sealed), Err(Reason::NoGrant));
    seal(&keyring, &host, "acme").unwrap();
    assert_eq!(host.calls.get(), 1);
}

#[test]
fn never_holds_more_than_its_capacity() {
    let names: Vec<_> = (0..50).map(|i| format!("tenant-{i}")).collect();
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    let (keyring, host) = (Keyring::new(), FakeHost::new(&names));
    for name in &names {
        host.pass(1);
        seal(&keyring, &host, name).unwrap();
        assert!(keyring.cache().len() <= host.capacity);
    }
    assert_eq!(keyring.cache().evictions(), 40);
    // The last ones are the ones still there.
    for name in &names[40..] {
        seal(&keyring, &host, name).unwrap();
    }
    assert_eq!(host.calls.get(), 50);
}

#[test]
fn another_tenants_value_is_refused_without_a_call() {
    let (keyring, host) = (Keyring::new(), FakeHost::new(&["acme", "globex"]));
    let sealed = seal(&keyring, &host, "acme").unwrap();
    assert_eq!(open(&keyring, &host, "globex", &sealed), Err(Reason::UnknownDataKey));
    assert_eq!(open(&keyring, &host, "nobody", &sealed), Err(Reason::UnknownTenant));
    assert_eq!(host.calls.get(), 1);
}
