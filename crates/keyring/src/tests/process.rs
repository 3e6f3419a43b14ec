//! A process whose registry, clock and KMS are plain fields, for several processes at once.

use crate::keyring::Keyring;
use crate::policy::Policy;
use crate::process::Process;
use crate::shared::call::{AwaitedCall, CallPermit};
use crate::shared::counters::SharedCounters;
use crate::shared::data_keys::DataKeySlot;
use crate::shared::history::Change;
use crate::shared::identity::TenantId;
use crate::shared::record::Record;
use crate::shared::table::SharedKeyring;
use crate::shared::tag::Tag;
use crate::tenant::{DataKey, DataKeyState, Grant, Role, Tenant, TenantState};
use cmk_crypto::commitment::Commitment;
use cmk_crypto::key::SecretKey;
use cmk_envelope::{Envelope, OVERHEAD};
use cmk_error::{Error, Instant, Reason, Result};
use cmk_kms::{CustomerKey, EncryptionContext, Kms, Purpose};
use std::cell::Cell;
use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

pub const SECOND: u64 = 1_000_000_000;
pub const TTL: u64 = 300;
pub const REFRESH_WAIT: u64 = SECOND / 10;

/// Tests run side by side, but of all data keys of a process one can be in use at a time.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

pub struct FakeProcess {
    _alone: MutexGuard<'static, ()>,
    pub now: Cell<Instant>,
    pub generation: Cell<u64>,
    pub tenants: RefCell<HashMap<String, Tenant>>,
    pub grant: Cell<Grant>,
    pub outage: Cell<Option<Reason>>,
    pub calls: Cell<u32>,
    /// Runs once, in the middle of the next KMS call.
    pub during_call: RefCell<Option<Happening>>,
    pub capacity: usize,
    pub soft_ttl: Cell<u64>,
    pub budget: Cell<u32>,
    pub pid: Cell<u32>,
    pub open_call: Cell<Option<CallPermit>>,
    pub counters: SharedCounters,
    pub records: RefCell<Vec<Record>>,
    pub slots: RefCell<Vec<DataKeySlot>>,
    /// Runs whenever a process waits for another.
    pub during_wait: RefCell<Option<Happening>>,
    pub logged: RefCell<Vec<Change>>,
}

pub type Happening = Box<dyn FnOnce(&FakeProcess)>;

/// "Wraps" a key as itself.
pub struct FakeKms<'a>(&'a FakeProcess);

impl Kms for FakeKms<'_> {
    fn generate(&self, _: &CustomerKey, _: &EncryptionContext<'_>) -> Result<Vec<u8>> {
        unreachable!("reads never make keys")
    }

    fn unwrap(
        &self,
        _: &CustomerKey,
        wrapped: &[u8],
        _: &EncryptionContext<'_>,
    ) -> Result<SecretKey> {
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

impl Process for FakeProcess {
    fn now(&self) -> Instant {
        self.now.get()
    }
    fn wall_clock(&self) -> i64 {
        self.now.get() as i64 / 1000
    }
    fn pid(&self) -> u32 {
        self.pid.get()
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
        self.generation.get() + self.counters.notices.load(std::sync::atomic::Ordering::Relaxed)
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
            refresh_wait: REFRESH_WAIT,
            failure_ttl: 4 * SECOND,
            call_timeout: 6 * SECOND,
            budget: self.budget.get(),
            capacity: self.capacity,
        }
    }
    fn tenant(&self, name: &str) -> Result<Option<Tenant>> {
        Ok(self.tenants.borrow().get(name).cloned())
    }
    fn grant(&self, _: Role, _: &str) -> Result<Grant> {
        Ok(self.grant.get())
    }
    fn kms(&self, _: Option<Duration>) -> impl Kms {
        FakeKms(self)
    }
    fn transaction_memory<R>(&self, work: impl FnOnce(&mut SharedKeyring<'_>) -> R) -> R {
        let (mut records, mut slots) = (self.records.borrow_mut(), self.slots.borrow_mut());
        let (records, slots) = (&mut records, &mut slots);
        work(&mut SharedKeyring { counters: &self.counters, records, slots, brakes: &mut [] })
    }
    fn has_uncommitted_registry_changes(&self) -> bool {
        false
    }
    fn read_server_memory<R>(&self, work: impl FnOnce(&SharedKeyring<'_>) -> R) -> R {
        self.server_memory(|shared| work(shared))
    }
    fn tenant_id(&self, name: &str) -> TenantId {
        TenantId::new(&self.counters.salt(), self.database(), name)
    }
    fn set_open_call(&self, permit: Option<CallPermit>) {
        self.open_call.set(permit);
    }
    fn server_memory<R>(&self, work: impl FnOnce(&mut SharedKeyring<'_>) -> R) -> R {
        self.transaction_memory(work)
    }
    fn wait(&self, _: AwaitedCall) {
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
    fn log_state_change(&self, _: &str, change: Change, _: Option<&Error>) {
        if change.is_news() {
            self.logged.borrow_mut().push(change);
        }
    }
}

impl FakeProcess {
    pub fn new(tenants: &[&str]) -> Self {
        let process = Self {
            _alone: ONE_AT_A_TIME.lock().unwrap_or_else(|poisoned| poisoned.into_inner()),
            now: Cell::new(1000 * SECOND),
            generation: Cell::new(1),
            tenants: RefCell::default(),
            grant: Cell::new(Grant { encrypt: true, decrypt: true }),
            outage: Cell::new(None),
            calls: Cell::new(0),
            during_call: RefCell::new(None),
            capacity: 10,
            soft_ttl: Cell::new(TTL * SECOND),
            budget: Cell::new(0),
            pid: Cell::new(1),
            open_call: Cell::new(None),
            counters: SharedCounters::new(),
            records: RefCell::new(vec![Record::default(); 64]),
            slots: RefCell::default(),
            during_wait: RefCell::new(None),
            logged: RefCell::default(),
        };
        for name in tenants {
            let tenant = Tenant {
                name: (*name).into(),
                state: TenantState::Active,
                epoch: 0,
                customer_key: CustomerKey::parse("local:k", "{}", 0).unwrap(),
                last_version: 1,
                data_keys: vec![data_key(name, 1)],
            };
            process.tenants.borrow_mut().insert((*name).into(), tenant);
        }
        process
    }

    pub fn change(&self, name: &str, change: impl FnOnce(&mut Tenant)) {
        change(self.tenants.borrow_mut().get_mut(name).unwrap());
        self.generation.set(self.generation.get() + 1);
    }

    /// With a shared keyring for so many data keys.
    pub fn sharing(self, keys: usize) -> Self {
        self.slots.borrow_mut().resize_with(keys, DataKeySlot::default);
        self
    }

    /// From now on this process calls.
    pub fn be(&self, pid: u32) {
        self.pid.set(pid);
    }

    pub fn pass(&self, seconds: u64) {
        self.now.set(self.now.get() + seconds * SECOND);
    }
}

pub fn data_key(tenant: &str, version: i32) -> DataKey {
    let dek = SecretKey::generate().unwrap();
    DataKey {
        version,
        purpose: Purpose::Values,
        state: DataKeyState::Current,
        commitment: Commitment::to(&dek, tenant.as_bytes()),
        wrapped: Some(dek.expose_secret().as_slice().into()),
    }
}

pub fn seal(keyring: &Keyring, process: &FakeProcess, tenant: &str) -> Result<Vec<u8>> {
    let mut out = vec![0; 5 + OVERHEAD];
    keyring.seal(process, tenant, b"", b"value", &mut out).map(|()| out)
}

pub fn open(
    keyring: &Keyring,
    process: &FakeProcess,
    tenant: &str,
    bytes: &[u8],
) -> Result<Vec<u8>, Reason> {
    let envelope = Envelope::parse(bytes).unwrap();
    let mut out = vec![0; envelope.plaintext_len()];
    let done = keyring.open(process, tenant, b"", &envelope, &mut out);
    done.map(|()| out).map_err(|error| error.reason)
}
