//! A process whose registry, clock and KMS are plain fields, for several processes at once.

use crate::keyring::Keyring;
use crate::policy::Policy;
use crate::process::Process;
use crate::shared::brake::Brake;
use crate::shared::call::{AwaitedCall, CallPermit};
use crate::shared::counters::SharedCounters;
use crate::shared::data_keys::DataKeySlot;
use crate::shared::history::Change;
use crate::shared::identity::TenantId;
use crate::shared::record::Record;
use crate::shared::table::SharedKeyring;
use crate::shared::tag::Tag;
use crate::tenant::{DataKey, DataKeyState, Grant, Right, Role, Tenant, TenantState};
use cmk_crypto::commitment::Commitment;
use cmk_crypto::key::SecretKey;
use cmk_envelope::{Envelope, OVERHEAD};
use cmk_error::{Error, Instant, Reason, Result};
use cmk_kms::{CustomerKey, EncryptionContext, Kms, Purpose, Route, Wrapped};
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
    /// Nanoseconds since the last tick.
    pub since_tick: Cell<u64>,
    /// Of what concerns all tenants.
    pub generation: Cell<u64>,
    /// How often the registry changed of each tenant.
    pub changes: RefCell<HashMap<String, u64>>,
    pub tenants: RefCell<HashMap<String, Tenant>>,
    /// Of every role that `grants` doesn't name.
    pub grant: Cell<Grant>,
    pub grants: RefCell<HashMap<Role, Grant>>,
    /// What the session names as its own.
    pub session_tenant: Cell<&'static str>,
    pub role: Cell<Role>,
    pub starters: Cell<[Option<Role>; 2]>,
    pub outage: Cell<Option<Reason>>,
    /// As `outage`, but of making data keys only.
    pub generate_outage: Cell<Option<Reason>>,
    pub calls: Cell<u32>,
    /// How often the registry was read for a tenant, and for a grant.
    pub tenant_reads: Cell<u32>,
    pub grant_reads: Cell<u32>,
    /// Each read of the registry finds it changed once more.
    pub restless: Cell<bool>,
    /// How often the memory of all processes was looked at.
    pub looks: Cell<u32>,
    /// Runs once, in the middle of the next KMS call.
    pub during_call: RefCell<Option<Happening>>,
    pub capacity: usize,
    pub soft_ttl: Cell<u64>,
    pub budget: Cell<u32>,
    pub pid: Cell<u32>,
    pub statement: Cell<u64>,
    /// From any key to any other.
    pub route: Cell<Route>,
    pub rewrap_outage: Cell<Option<Reason>>,
    pub open_call: Cell<Option<CallPermit>>,
    pub counters: SharedCounters,
    pub records: RefCell<Vec<Record>>,
    pub slots: RefCell<Vec<DataKeySlot>>,
    pub brakes: RefCell<[Brake; 4]>,
    /// The transaction changed the registry: what it learns goes to memory of its own.
    pub uncommitted: Cell<bool>,
    own_counters: SharedCounters,
    own_records: RefCell<Vec<Record>>,
    /// Runs whenever a process waits for another.
    pub during_wait: RefCell<Option<Happening>>,
    pub logged: RefCell<Vec<Change>>,
    /// How often the renewer was woken.
    pub handed_over: Cell<u32>,
    /// Of renewals that KMS takes too long for: its latency, and whether they were handed over.
    pub short_waits: RefCell<Vec<(u64, bool)>>,
    /// Records whose waiters were woken.
    pub woken: RefCell<Vec<usize>>,
    /// When data keys are to be erased.
    pub erasures: RefCell<Vec<Instant>>,
    /// How long each provider of keys may take.
    pub limits: RefCell<Vec<Option<Duration>>>,
}

pub type Happening = Box<dyn FnOnce(&FakeProcess)>;

/// "Wraps" a key as itself.
pub struct FakeKms<'a>(&'a FakeProcess);

impl Kms for FakeKms<'_> {
    fn generate(&self, _: &CustomerKey, _: &EncryptionContext<'_>) -> Result<Vec<u8>> {
        self.begin_call();
        match self.0.generate_outage.get().or(self.0.outage.get()) {
            Some(reason) => Err(reason.into()),
            None => Ok(SecretKey::generate()?.expose_secret().as_slice().into()),
        }
    }

    fn unwrap(
        &self,
        _: &CustomerKey,
        wrapped: &[u8],
        _: &EncryptionContext<'_>,
    ) -> Result<SecretKey> {
        self.begin_call();
        match self.0.outage.get() {
            Some(reason) => Err(reason.into()),
            None => SecretKey::from_slice(wrapped),
        }
    }

    fn wrap(&self, _: &CustomerKey, dek: &SecretKey, _: &EncryptionContext<'_>) -> Result<Vec<u8>> {
        self.begin_call();
        match self.0.generate_outage.get().or(self.0.outage.get()) {
            Some(reason) => Err(reason.into()),
            None => Ok(dek.expose_secret().as_slice().into()),
        }
    }

    fn route(&self, _: &CustomerKey, _: &CustomerKey) -> Route {
        self.0.route.get()
    }

    fn rewrap(
        &self,
        _: &CustomerKey,
        wrapped: &[u8],
        _: &CustomerKey,
        _: &EncryptionContext<'_>,
    ) -> Result<Vec<u8>> {
        self.begin_call();
        match self.0.rewrap_outage.get() {
            Some(reason) => Err(reason.into()),
            None => Ok(wrapped.into()),
        }
    }
}

impl FakeKms<'_> {
    fn begin_call(&self) {
        self.0.calls.set(self.0.calls.get() + 1);
        if let Some(happen) = self.0.during_call.take() {
            happen(self.0);
        }
    }
}

impl Process for FakeProcess {
    fn now(&self) -> Instant {
        self.now.get()
    }
    fn tick(&self) -> Instant {
        self.now.get() - self.since_tick.get()
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
    fn statement(&self) -> u64 {
        self.statement.get()
    }
    fn role(&self) -> Role {
        self.role.get()
    }
    fn starters(&self) -> [Option<Role>; 2] {
        self.starters.get()
    }
    fn generation(&self) -> u64 {
        self.registry_generation() + self.counters.notices()
    }
    fn registry_generation(&self) -> u64 {
        self.generation.get() + self.changes.borrow().values().sum::<u64>()
    }
    fn tenant_generation(&self, name: &str) -> u64 {
        self.generation.get() + self.changes.borrow().get(name).copied().unwrap_or_default()
    }
    fn notices_of(&self, tenant: &TenantId) -> u64 {
        self.counters.notices_of(tenant)
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
        self.tenant_reads.set(self.tenant_reads.get() + 1);
        if self.restless.get() {
            self.generation.set(self.generation.get() + 1);
        }
        Ok(self.tenants.borrow().get(name).cloned())
    }
    fn require_session_tenant(&self, tenant: &str) -> Result<()> {
        match self.session_tenant.get() == tenant {
            true => Ok(()),
            false => Err(Reason::TenantMismatch.into()),
        }
    }

    fn grant(&self, role: Role, _: &str) -> Result<Grant> {
        self.grant_reads.set(self.grant_reads.get() + 1);
        Ok(self.grants.borrow().get(&role).copied().unwrap_or(self.grant.get()))
    }
    fn kms(&self, limit: Option<Duration>) -> impl Kms {
        self.limits.borrow_mut().push(limit);
        FakeKms(self)
    }
    fn transaction_memory<R>(&self, work: impl FnOnce(&mut SharedKeyring<'_>) -> R) -> R {
        if !self.uncommitted.get() {
            return self.server_memory(work);
        }
        let records = &mut self.own_records.borrow_mut();
        let counters = &self.own_counters;
        let (slots, brakes) = (&mut [], &mut []);
        work(&mut SharedKeyring { counters, records, slots, shares_data_keys: false, brakes })
    }
    fn has_uncommitted_registry_changes(&self) -> bool {
        self.uncommitted.get()
    }
    fn read_server_memory<R>(&self, work: impl FnOnce(&SharedKeyring<'_>) -> R) -> R {
        self.server_memory(|shared| work(shared))
    }
    fn tenant_id(&self, name: &str) -> TenantId {
        TenantId::new(&self.counters.salt(), self.database(), name)
    }
    fn call_opened(&self, permit: CallPermit) {
        self.open_call.set(Some(permit));
    }
    fn call_closed(&self, _: &CallPermit) {
        self.open_call.set(None);
    }
    fn server_memory<R>(&self, work: impl FnOnce(&mut SharedKeyring<'_>) -> R) -> R {
        self.looks.set(self.looks.get() + 1);
        let (mut records, mut slots) = (self.records.borrow_mut(), self.slots.borrow_mut());
        let (records, slots, counters) = (&mut records, &mut slots, &self.counters);
        let brakes = &mut *self.brakes.borrow_mut();
        let shares_data_keys = !slots.is_empty();
        work(&mut SharedKeyring { counters, records, slots, shares_data_keys, brakes })
    }
    fn wait(&self, _: AwaitedCall) {
        match self.during_wait.take() {
            Some(happen) => happen(self),
            None => self.pass(1),
        }
    }
    fn wake(&self, record: usize) {
        self.woken.borrow_mut().push(record);
    }
    fn hold(&self, tag: Tag) -> Tag {
        tag
    }
    fn erase_at(&self, deadline: Instant) {
        self.erasures.borrow_mut().push(deadline);
    }
    fn want_renewal(&self) {
        self.handed_over.set(self.handed_over.get() + 1);
    }
    fn log_short_wait(&self, _: &str, latency: u64, is_handed_over: bool) {
        self.short_waits.borrow_mut().push((latency, is_handed_over));
    }
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
            since_tick: Cell::default(),
            generation: Cell::new(1),
            changes: RefCell::default(),
            tenants: RefCell::default(),
            session_tenant: Cell::default(),
            grant: Cell::new(Grant { encrypt: Right::Always, decrypt: Right::Always }),
            grants: RefCell::default(),
            role: Cell::new(Role(10)),
            starters: Cell::new([None, None]),
            outage: Cell::new(None),
            generate_outage: Cell::new(None),
            calls: Cell::new(0),
            tenant_reads: Cell::new(0),
            grant_reads: Cell::new(0),
            restless: Cell::new(false),
            looks: Cell::new(0),
            during_call: RefCell::new(None),
            capacity: 10,
            soft_ttl: Cell::new(TTL * SECOND),
            budget: Cell::new(0),
            pid: Cell::new(1),
            statement: Cell::new(1),
            route: Cell::new(Route::UnwrapAndWrap),
            rewrap_outage: Cell::new(None),
            open_call: Cell::new(None),
            counters: SharedCounters::new(),
            records: RefCell::new(vec![Record::default(); 64]),
            slots: RefCell::default(),
            brakes: RefCell::default(),
            uncommitted: Cell::new(false),
            own_counters: SharedCounters::new(),
            own_records: RefCell::new(vec![Record::default(); 64]),
            during_wait: RefCell::new(None),
            logged: RefCell::default(),
            handed_over: Cell::new(0),
            short_waits: RefCell::default(),
            woken: RefCell::default(),
            erasures: RefCell::default(),
            limits: RefCell::default(),
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
        *self.changes.borrow_mut().entry(name.into()).or_default() += 1;
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

    /// What the processes know of a tenant.
    pub fn record(&self, name: &str) -> Record {
        let id = self.tenant_id(name);
        self.server_memory(|shared| *shared.find(&id).expect("a record").1)
    }

    /// The tenant as the registry has it.
    pub fn registered(&self, name: &str) -> Tenant {
        self.tenants.borrow()[name].clone()
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

/// A check of a tenant's key, from its beginning to its end. False if nothing was asked.
pub fn check(keyring: &Keyring, process: &FakeProcess, tenant: &Tenant) -> bool {
    let Some((check, wrapped)) = keyring.begin_check(process, tenant.clone()) else { return false };
    keyring.end_check(check, answer(process, &wrapped));
    true
}

/// What KMS answers a check.
pub fn answer(process: &FakeProcess, wrapped: &Wrapped) -> Result<SecretKey> {
    let context = EncryptionContext::new(&wrapped.tenant, wrapped.purpose);
    process.kms(None).unwrap(&wrapped.key, &wrapped.bytes, &context)
}
