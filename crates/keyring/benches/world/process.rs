//! A process whose registry and KMS are plain fields, without anything that waits.

use cmk_crypto::commitment::Commitment;
use cmk_crypto::key::SecretKey;
use cmk_error::{Error, Instant, Result};
use cmk_keyring::policy::Policy;
use cmk_keyring::process::Process;
use cmk_keyring::shared::call::{AwaitedCall, CallPermit};
use cmk_keyring::shared::counters::SharedCounters;
use cmk_keyring::shared::data_keys::DataKeySlot;
use cmk_keyring::shared::history::Change;
use cmk_keyring::shared::identity::TenantId;
use cmk_keyring::shared::record::Record;
use cmk_keyring::shared::table::SharedKeyring;
use cmk_keyring::shared::tag::Tag;
use cmk_keyring::tenant::{DataKey, DataKeyState, Grant, Right, Role, Tenant, TenantState};
use cmk_kms::{CustomerKey, EncryptionContext, Kms, Purpose, Route};
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::time::Duration;

const SECOND: u64 = 1_000_000_000;

pub struct BenchProcess {
    pub now: Cell<Instant>,
    pub statement: Cell<u64>,
    tenants: HashMap<String, Tenant>,
    counters: SharedCounters,
    records: RefCell<Vec<Record>>,
    slots: RefCell<Vec<DataKeySlot>>,
    capacity: usize,
}

/// "Wraps" a key as itself.
struct PlainKms;

impl Kms for PlainKms {
    fn generate(&self, _: &CustomerKey, _: &EncryptionContext<'_>) -> Result<Vec<u8>> {
        unreachable!("benches register nobody")
    }

    fn unwrap(
        &self,
        _: &CustomerKey,
        wrapped: &[u8],
        _: &EncryptionContext<'_>,
    ) -> Result<SecretKey> {
        SecretKey::from_slice(wrapped)
    }

    fn wrap(&self, _: &CustomerKey, _: &SecretKey, _: &EncryptionContext<'_>) -> Result<Vec<u8>> {
        unreachable!("benches move nobody")
    }

    fn route(&self, _: &CustomerKey, _: &CustomerKey) -> Route {
        unreachable!("benches move nobody")
    }

    fn rewrap(
        &self,
        _: &CustomerKey,
        _: &[u8],
        _: &CustomerKey,
        _: &EncryptionContext<'_>,
    ) -> Result<Vec<u8>> {
        unreachable!("benches move nobody")
    }
}

impl BenchProcess {
    /// So many tenants, t0 and so on; so many places in the shared table; so many in the cache.
    pub fn new(tenants: usize, shared: usize, capacity: usize) -> Self {
        let dek = SecretKey::generate().expect("random bytes");
        let customer_key = CustomerKey::parse("local:bench", "{}", 0).expect("a local key");
        let tenant = |number: usize| {
            let name = format!("t{number}");
            let data_key = DataKey {
                version: 1,
                purpose: Purpose::Values,
                state: DataKeyState::Current,
                commitment: Commitment::to(&dek, name.as_bytes()),
                wrapped: Some(dek.expose_secret().as_slice().into()),
            };
            let tenant = Tenant {
                name: name.as_str().into(),
                state: TenantState::Active,
                epoch: 0,
                customer_key: customer_key.clone(),
                last_version: 1,
                data_keys: vec![data_key],
            };
            (name, tenant)
        };
        Self {
            now: Cell::new(1_000 * SECOND),
            statement: Cell::new(1),
            tenants: (0..tenants).map(tenant).collect(),
            counters: SharedCounters::new(),
            records: RefCell::new(vec![Record::default(); shared]),
            slots: RefCell::new((0..shared).map(|_| DataKeySlot::default()).collect()),
            capacity,
        }
    }
}

impl Process for BenchProcess {
    fn now(&self) -> Instant {
        // Every call a little later, as a clock has it.
        self.now.set(self.now.get() + 1);
        self.now.get()
    }
    fn wall_clock(&self) -> i64 {
        0
    }
    fn pid(&self) -> u32 {
        1
    }
    fn database(&self) -> u32 {
        5
    }
    fn statement(&self) -> u64 {
        self.statement.get()
    }
    fn role(&self) -> Role {
        Role(10)
    }
    fn starters(&self) -> [Option<Role>; 2] {
        [None, None]
    }
    fn generation(&self) -> u64 {
        1
    }
    fn registry_generation(&self) -> u64 {
        1
    }
    fn tenant_generation(&self, _: &str) -> u64 {
        1
    }
    fn notices_of(&self, _: &TenantId) -> u64 {
        0
    }
    fn policy(&self) -> Policy {
        Policy {
            ttl: self.ttl(),
            soft_ttl: self.ttl(),
            refresh_wait: 0,
            failure_ttl: SECOND,
            call_timeout: SECOND,
            budget: 0,
            capacity: self.capacity,
        }
    }
    fn ttl(&self) -> u64 {
        300 * SECOND
    }
    fn tenant(&self, name: &str) -> Result<Option<Tenant>> {
        Ok(self.tenants.get(name).cloned())
    }
    fn require_session_tenant(&self, _: &str) -> Result<()> {
        Ok(())
    }

    fn grant(&self, _: Role, _: &str) -> Result<Grant> {
        Ok(Grant { encrypt: Right::Always, decrypt: Right::Always })
    }
    fn kms(&self, _: Option<Duration>) -> impl Kms {
        PlainKms
    }
    fn has_uncommitted_registry_changes(&self) -> bool {
        false
    }
    fn server_memory<R>(&self, work: impl FnOnce(&mut SharedKeyring<'_>) -> R) -> R {
        work(&mut SharedKeyring {
            counters: &self.counters,
            records: &mut self.records.borrow_mut(),
            slots: &mut self.slots.borrow_mut(),
            shares_data_keys: true,
            brakes: &mut [],
        })
    }
    fn read_server_memory<R>(&self, work: impl FnOnce(&SharedKeyring<'_>) -> R) -> R {
        self.server_memory(|shared| work(shared))
    }
    fn transaction_memory<R>(&self, work: impl FnOnce(&mut SharedKeyring<'_>) -> R) -> R {
        self.server_memory(work)
    }
    fn tenant_id(&self, name: &str) -> TenantId {
        TenantId::new(&self.counters.salt(), self.database(), name)
    }
    fn call_opened(&self, _: CallPermit) {}
    fn call_closed(&self, _: &CallPermit) {}
    fn wait(&self, _: AwaitedCall) {}
    fn wake(&self, _: usize) {}
    fn hold(&self, tag: Tag) -> Tag {
        tag
    }
    fn erase_at(&self, _: Instant) {}
    fn want_renewal(&self) {}
    fn log_short_wait(&self, _: &str, _: u64, _: bool) {}
    fn log_state_change(&self, _: &str, _: Change, _: Option<&Error>) {}
}
