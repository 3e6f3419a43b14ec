//! A host whose registry, clock and KMS are plain fields, for several processes at once.

use crate::shared::record::{Change, Record};
use crate::shared::vault::Slot;
use crate::shared::{Awaited, Shared, Tag, Words};
use crate::tenant::{DataKey, Permissions, Tenant};
use crate::tenant::{DataKeyState, Role, TenantState};
use crate::{Host, Keyring, Policy};
use cmk_crypto::commitment::Commitment;
use cmk_crypto::key::SecretKey;
use cmk_envelope::Envelope;
use cmk_envelope::OVERHEAD;
use cmk_error::{Error, Instant, Reason, Result};
use cmk_kms::context::EncryptionContext;
use cmk_kms::key_uri::KeyUri;
use cmk_kms::{Custody, Kms};
use std::cell::Cell;
use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

pub const SECOND: u64 = 1_000_000_000;
pub const TTL: u64 = 300;

/// Tests run side by side, but of all data keys of a process one can be in use at a time.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

pub struct FakeHost {
    _alone: MutexGuard<'static, ()>,
    pub now: Cell<Instant>,
    pub generation: Cell<u64>,
    pub tenants: RefCell<HashMap<String, Tenant>>,
    pub permissions: Cell<Permissions>,
    pub outage: Cell<Option<Reason>>,
    pub calls: Cell<u32>,
    /// Runs once, in the middle of the next KMS call.
    pub during_call: RefCell<Option<Happening>>,
    pub capacity: usize,
    pub soft_ttl: Cell<u64>,
    pub budget: Cell<u32>,
    pub process: Cell<u32>,
    pub words: Words,
    pub records: RefCell<Vec<Record>>,
    pub slots: RefCell<Vec<Slot>>,
    /// Runs whenever a process waits for another.
    pub during_wait: RefCell<Option<Happening>>,
    pub told: RefCell<Vec<Change>>,
}

pub type Happening = Box<dyn FnOnce(&FakeHost)>;

/// "Wraps" a key as itself.
pub struct FakeKms<'a>(&'a FakeHost);

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
    fn starters(&self) -> [Option<Role>; 2] {
        [None, None]
    }
    fn generation(&self) -> u64 {
        self.generation.get() + self.words.revocations.load(std::sync::atomic::Ordering::Relaxed)
    }
    fn registry_generation(&self) -> u64 {
        self.generation.get()
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
        let (records, slots) = (&mut records, &mut slots);
        work(&mut Shared { words: &self.words, records, slots, brakes: &mut [] })
    }
    fn is_alone(&self) -> bool {
        false
    }
    fn common<R>(&self, work: impl FnOnce(&mut Shared<'_>) -> R) -> R {
        self.shared(work)
    }
    fn wait(&self, _: Awaited) {
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
    pub fn new(tenants: &[&str]) -> Self {
        let host = Self {
            _alone: ONE_AT_A_TIME.lock().unwrap_or_else(|poisoned| poisoned.into_inner()),
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
                last_version: 1,
                data_keys: vec![data_key(name, 1)],
            };
            host.tenants.borrow_mut().insert((*name).into(), tenant);
        }
        host
    }

    pub fn change(&self, name: &str, change: impl FnOnce(&mut Tenant)) {
        change(self.tenants.borrow_mut().get_mut(name).unwrap());
        self.generation.set(self.generation.get() + 1);
    }

    /// With a shared keyring for so many data keys.
    pub fn sharing(self, keys: usize) -> Self {
        self.slots.borrow_mut().resize_with(keys, Slot::default);
        self
    }

    /// From now on this process calls.
    pub fn be(&self, process: u32) {
        self.process.set(process);
    }

    pub fn pass(&self, seconds: u64) {
        self.now.set(self.now.get() + seconds * SECOND);
    }
}

pub fn data_key(tenant: &str, version: i32) -> DataKey {
    let dek = SecretKey::generate().unwrap();
    DataKey {
        version,
        state: DataKeyState::Current,
        commitment: Commitment::to(&dek, tenant.as_bytes()),
        wrapped: Some(dek.expose_secret().as_slice().into()),
    }
}

pub fn seal(keyring: &Keyring, host: &FakeHost, tenant: &str) -> Result<Vec<u8>> {
    let mut out = vec![0; 5 + OVERHEAD];
    keyring.seal(host, tenant, b"", b"value", &mut out).map(|()| out)
}

pub fn open(
    keyring: &Keyring,
    host: &FakeHost,
    tenant: &str,
    bytes: &[u8],
) -> Result<Vec<u8>, Reason> {
    let envelope = Envelope::parse(bytes).unwrap();
    let mut out = vec![0; envelope.plaintext_len()];
    let done = keyring.open(host, tenant, b"", &envelope, &mut out);
    done.map(|()| out).map_err(|error| error.reason)
}
