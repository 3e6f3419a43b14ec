use super::*;
use crate::cache::Instant;
use crate::crypto::commitment::Commitment;
use crate::crypto::key::SecretKey;
use crate::envelope::OVERHEAD;
use crate::kms::arn::KeyUri;
use crate::kms::context::EncryptionContext;
use crate::kms::{Custody, Kms};
use crate::registry::{DataKeyState, Role, TenantState};
use crate::shared::record::{Change, Record};
use crate::shared::vault::Slot;
use crate::shared::{Shared, Tag, Words};
use std::cell::Cell;
use std::collections::HashMap;
use std::time::Duration;

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
    soft_ttl: Cell<u64>,
    budget: Cell<u32>,
    process: Cell<u32>,
    words: Words,
    records: RefCell<Vec<Record>>,
    slots: RefCell<Vec<Slot>>,
    /// Runs whenever a process waits for another.
    during_wait: RefCell<Option<Happening>>,
    told: RefCell<Vec<Change>>,
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
    fn wall_clock(&self) -> i64 {
        self.now.get() as i64 / 1000
    }
    fn process_id(&self) -> u32 {
        self.process.get()
    }
    fn database(&self) -> u32 {
        5
    }
    fn role(&self) -> Role {
        Role(10)
    }
    fn generation(&self) -> u64 {
        self.generation.get() + self.words.revocations.load(std::sync::atomic::Ordering::Relaxed)
    }
    fn ttl(&self) -> u64 {
        TTL * SECOND
    }
    fn policy(&self) -> Policy {
        Policy {
            ttl: TTL * SECOND,
            soft_ttl: self.soft_ttl.get(),
            refresh_wait: SECOND / 10,
            failure_ttl: 4 * SECOND,
            patience: 6 * SECOND,
            budget: self.budget.get(),
            capacity: self.capacity,
        }
    }
    fn tenant(&self, name: &str) -> Result<Option<Tenant>> {
        Ok(self.tenants.borrow().get(name).cloned())
    }
    fn permissions(&self, _: Role, _: &str) -> Result<Permissions> {
        Ok(self.permissions.get())
    }
    fn kms(&self, _: Option<Duration>) -> impl Kms {
        FakeKms(self)
    }
    fn shared<R>(&self, work: impl FnOnce(&mut Shared<'_>) -> R) -> R {
        let (mut records, mut slots) = (self.records.borrow_mut(), self.slots.borrow_mut());
        work(&mut Shared { words: &self.words, records: &mut records, slots: &mut slots })
    }
    fn is_alone(&self) -> bool {
        false
    }
    fn common<R>(&self, work: impl FnOnce(&mut Shared<'_>) -> R) -> R {
        self.shared(work)
    }
    fn wait(&self, _: usize) {
        match self.during_wait.take() {
            Some(happen) => happen(self),
            None => self.pass(1),
        }
    }
    fn wake(&self, _: usize) {}
    fn hold(&self, tag: Tag) -> Tag {
        tag
    }
    fn erase_at(&self, _: Instant) {}
    fn tell(&self, _: &str, change: Change, _: Option<&Error>) {
        if change.is_news() {
            self.told.borrow_mut().push(change);
        }
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
            soft_ttl: Cell::new(TTL * SECOND),
            budget: Cell::new(0),
            process: Cell::new(1),
            words: Words::new(),
            records: RefCell::new(vec![Record::default(); 64]),
            slots: RefCell::default(),
            during_wait: RefCell::new(None),
            told: RefCell::default(),
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

    /// With a shared keyring for so many data keys.
    fn sharing(self, keys: usize) -> Self {
        self.slots.borrow_mut().resize_with(keys, Slot::default);
        self
    }

    /// From now on this process calls.
    fn be(&self, process: u32) {
        self.process.set(process);
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
    host.pass(1);
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

// Refreshing ahead

fn young_tenant() -> (Keyring, FakeHost, Vec<u8>) {
    let (keyring, host) = (Keyring::new(), FakeHost::new(&["acme"]));
    host.soft_ttl.set(200 * SECOND);
    let sealed = seal(&keyring, &host, "acme").unwrap();
    (keyring, host, sealed)
}

#[test]
fn from_the_soft_ttl_on_a_data_key_is_fetched_ahead_of_need() {
    let (keyring, host, sealed) = young_tenant();
    host.pass(179);
    open(&keyring, &host, "acme", &sealed).unwrap();
    assert_eq!(host.calls.get(), 1);
    host.pass(42);
    open(&keyring, &host, "acme", &sealed).unwrap();
    assert_eq!(host.calls.get(), 2);
    host.pass(170);
    host.outage.set(Some(Reason::KmsTimeout));
    open(&keyring, &host, "acme", &sealed).unwrap();
}

#[test]
fn an_outage_met_by_a_refresh_is_told_once_and_serves_until_the_hard_ttl() {
    let (keyring, host, sealed) = young_tenant();
    host.outage.set(Some(Reason::KmsUnreachable));
    for _ in 0..TTL - 1 {
        host.pass(1);
        open(&keyring, &host, "acme", &sealed).unwrap();
    }
    let refreshes = host.calls.get() - 1;
    assert!((3..=30).contains(&refreshes), "{refreshes}");
    host.pass(1);
    assert_eq!(open(&keyring, &host, "acme", &sealed), Err(Reason::KmsUnreachable));
    let outage = Change { from: Some("usable"), to: Some("unreachable") };
    assert_eq!(*host.told.borrow(), [outage]);
}

#[test]
fn a_refresh_that_finds_the_key_revoked_purges_at_once() {
    let (keyring, host, sealed) = young_tenant();
    host.pass(221);
    host.outage.set(Some(Reason::KeyDisabled));
    assert_eq!(open(&keyring, &host, "acme", &sealed), Err(Reason::KeyDisabled));
    assert!(keyring.cache().is_empty());
}

#[test]
fn a_slow_refresh_says_nothing_about_the_key() {
    let (keyring, host, sealed) = young_tenant();
    host.pass(221);
    host.outage.set(Some(Reason::KmsTimeout));
    for _ in 0..100 {
        open(&keyring, &host, "acme", &sealed).unwrap();
    }
    assert_eq!(host.calls.get(), 2);
    assert!(host.told.borrow().is_empty());
    host.change("acme", |tenant| tenant.data_keys.push(data_key("acme", 2)));
    host.change("acme", |tenant| tenant.data_keys[0].state = DataKeyState::Retired);
    host.outage.set(None);
    seal(&keyring, &host, "acme").unwrap();
}

// Several processes

#[test]
fn one_unwrap_serves_every_process_within_the_ttl() {
    let host = FakeHost::new(&["acme"]).sharing(4);
    let processes: Vec<_> = (0..5).map(|_| Keyring::new()).collect();
    let sealed = seal(&processes[0], &host, "acme").unwrap();
    for (id, keyring) in processes.iter().enumerate() {
        host.be(id as u32 + 1);
        open(keyring, &host, "acme", &sealed).unwrap();
    }
    assert_eq!(host.calls.get(), 1);
    host.outage.set(Some(Reason::KmsTimeout));
    host.pass(TTL);
    // A copy is as old as the unwrap it came from.
    for keyring in &processes {
        assert_eq!(open(keyring, &host, "acme", &sealed), Err(Reason::KmsTimeout));
    }
    assert_eq!(host.calls.get(), 2);
}

#[test]
fn of_two_processes_one_asks_and_the_other_waits() {
    let host = FakeHost::new(&["acme"]).sharing(4);
    let (first, second) = (Keyring::new(), std::rc::Rc::new(Keyring::new()));
    let waiter = second.clone();
    *host.during_call.borrow_mut() = Some(Box::new(move |host| {
        host.be(2);
        *host.during_wait.borrow_mut() =
            Some(Box::new(|_| std::panic::resume_unwind(Box::new("waits"))));
        let unwound =
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| seal(&waiter, host, "acme")));
        assert_eq!(*unwound.unwrap_err().downcast::<&str>().unwrap(), "waits");
        host.be(1);
    }));
    let sealed = seal(&first, &host, "acme").unwrap();
    host.be(2);
    open(&second, &host, "acme", &sealed).unwrap();
    assert_eq!(host.calls.get(), 1);
}

#[test]
fn a_waiter_survives_the_one_it_waits_for() {
    let host = FakeHost::new(&["acme"]).sharing(4);
    let (lost, waiter) = (Keyring::new(), Keyring::new());
    *host.during_call.borrow_mut() =
        Some(Box::new(|_| std::panic::resume_unwind(Box::new("cancelled"))));
    let cancelled =
        || std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| seal(&lost, &host, "acme")));
    assert!(cancelled().is_err());
    host.be(2);
    seal(&waiter, &host, "acme").unwrap();
    assert_eq!(host.calls.get(), 2);
}

#[test]
fn a_revocation_seen_by_one_process_purges_all() {
    let host = FakeHost::new(&["acme", "globex"]).sharing(4);
    let (first, second) = (Keyring::new(), Keyring::new());
    let sealed = seal(&first, &host, "acme").unwrap();
    let other = seal(&first, &host, "globex").unwrap();
    host.be(2);
    open(&second, &host, "acme", &sealed).unwrap();
    host.change("acme", |tenant| {
        tenant.data_keys[0].state = DataKeyState::Retired;
        tenant.data_keys.push(data_key("acme", 2));
    });
    host.outage.set(Some(Reason::KeyDisabled));
    assert!(seal(&second, &host, "acme").is_err());
    host.be(1);
    assert_eq!(open(&first, &host, "acme", &sealed), Err(Reason::KeyDisabled));
    open(&first, &host, "globex", &other).unwrap();
    assert_eq!(host.calls.get(), 3);
    host.outage.set(None);
    host.pass(6);
    open(&first, &host, "acme", &sealed).unwrap();
}

#[test]
fn a_failure_is_remembered_by_all_processes() {
    let host = FakeHost::new(&["acme"]).sharing(4);
    host.outage.set(Some(Reason::KmsTimeout));
    for process in 1..10 {
        host.be(process);
        assert_eq!(seal(&Keyring::new(), &host, "acme").unwrap_err().reason, Reason::KmsTimeout);
    }
    assert_eq!(host.calls.get(), 1);
}

#[test]
fn an_eviction_reaches_what_is_shared() {
    let host = FakeHost::new(&["acme"]).sharing(4);
    let sealed = seal(&Keyring::new(), &host, "acme").unwrap();
    host.change("acme", |tenant| tenant.epoch = 77);
    open(&Keyring::new(), &host, "acme", &sealed).unwrap();
    assert_eq!(host.calls.get(), 2);
}

#[test]
fn a_spent_budget_refuses_calls_but_not_what_is_cached() {
    let (keyring, host) = (Keyring::new(), FakeHost::new(&["acme", "globex"]));
    host.budget.set(3);
    let mut sealed = Vec::new();
    for _ in 0..3 {
        sealed = seal(&keyring, &host, "acme").unwrap();
        host.change("acme", |tenant| tenant.epoch += 1);
    }
    assert_eq!(seal(&keyring, &host, "acme").unwrap_err().reason, Reason::CallBudgetSpent);
    seal(&keyring, &host, "globex").unwrap();
    host.pass(20);
    open(&keyring, &host, "acme", &sealed).unwrap();
    open(&keyring, &host, "acme", &sealed).unwrap();
    assert_eq!(host.calls.get(), 5);
}

#[test]
fn the_circuit_breaker_stretches_the_pauses_of_an_outage() {
    let (keyring, host) = (Keyring::new(), FakeHost::new(&["acme"]));
    host.outage.set(Some(Reason::KmsTimeout));
    for _ in 0..600 {
        host.pass(1);
        assert!(seal(&keyring, &host, "acme").is_err());
    }
    // 3 pauses of 4 s, then 8, 16 and 32 s for ever, each ± 25 %.
    assert!((15..=30).contains(&host.calls.get()), "{}", host.calls.get());
}

#[test]
fn warming_fetches_every_version() {
    let (keyring, host) = (Keyring::new(), FakeHost::new(&["acme"]));
    host.change("acme", |tenant| {
        tenant.data_keys[0].state = DataKeyState::Retired;
        tenant.data_keys.push(data_key("acme", 2));
    });
    assert_eq!(keyring.warm(&host, "acme").unwrap(), 2);
    assert_eq!((keyring.cache().len(), host.calls.get()), (2, 2));
    assert_eq!(keyring.warm(&host, "nobody").unwrap_err().reason, Reason::UnknownTenant);
    host.permissions.set(Permissions::default());
    host.change("acme", |_| {});
    assert_eq!(keyring.warm(&host, "acme").unwrap_err().reason, Reason::NoGrant);
}
