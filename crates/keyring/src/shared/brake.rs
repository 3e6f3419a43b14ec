//! What takes effect before its transaction can commit: a suspension, or a grant taken back, that
//! waits for locks of others. It holds for all processes until the transaction ends; then the
//! registry says what holds. Evictions are no entries of this table: they change the tenants'
//! records.

use super::counters::SharedCounters;
use super::identity::TenantId;

/// Brakes that can be on at a time; one that finds no room takes effect with its commit.
pub const BRAKES: usize = 64;

/// All zero: off.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Brake {
    /// Process id of who pulled it; 0: off.
    pid: u32,
    /// The level of the subtransaction in which it was pulled.
    level: i32,
    database: u32,
    /// The tenant is suspended; else a grant counts less.
    suspends: bool,
    /// Whose grant.
    role: u32,
    /// The default: a grant for every tenant.
    tenant: TenantId,
    encrypt: bool,
    decrypt: bool,
}

impl Brake {
    /// A tenant is suspended.
    pub fn suspension(database: u32, tenant: TenantId) -> Self {
        Self { database, tenant, suspends: true, ..Self::default() }
    }

    /// Without a tenant, a grant for every tenant is taken back.
    pub fn revocation(
        database: u32,
        tenant: Option<TenantId>,
        role: u32,
        (encrypt, decrypt): (bool, bool),
    ) -> Self {
        let tenant = tenant.unwrap_or_default();
        Self { database, role, tenant, encrypt, decrypt, ..Self::default() }
    }

    fn reduces_grants(&self, database: u32, tenant: &TenantId) -> bool {
        self.pid != 0
            && !self.suspends
            && self.database == database
            && (self.tenant == *tenant || self.tenant == TenantId::default())
    }

    /// Has every process look at whom it concerns.
    fn notify(&self, counters: &SharedCounters) {
        match self.tenant == TenantId::default() {
            true => counters.notify_all(),
            false => counters.notify(&self.tenant),
        }
    }

    /// Who pulls it, and at which level of subtransactions.
    #[must_use]
    pub fn by(self, pid: u32, level: i32) -> Self {
        Self { pid, level, ..self }
    }
}

/// False where there is no room for one more: then it takes effect with the commit only.
pub fn pull(brakes: &mut [Brake], counters: &SharedCounters, brake: Brake) -> bool {
    let place = brakes.iter_mut().find(|brake| brake.pid == 0);
    let has_room = place.map(|place| *place = brake).is_some();
    if has_room {
        brake.notify(counters);
    }
    has_room
}

/// At the end of a process's transaction, or of a subtransaction that is undone: lifts all that
/// were pulled at `level` or deeper.
pub fn lift(brakes: &mut [Brake], counters: &SharedCounters, pid: u32, level: i32) {
    let theirs = |brake: &&mut Brake| brake.pid == pid && brake.level >= level;
    brakes.iter_mut().filter(theirs).for_each(|brake| std::mem::take(brake).notify(counters));
}

/// A subtransaction was released: what it did now belongs to the one around it.
pub fn keep(brakes: &mut [Brake], pid: u32, level: i32) {
    let theirs = |brake: &&mut Brake| brake.pid == pid && brake.level >= level;
    brakes.iter_mut().filter(theirs).for_each(|brake| brake.level = level - 1);
}

/// Whether a tenant is suspended before the registry says so.
pub fn is_suspended(brakes: &[Brake], database: u32, tenant: &TenantId) -> bool {
    let suspends = |brake: &Brake| {
        brake.pid != 0 && brake.suspends && brake.database == database && brake.tenant == *tenant
    };
    brakes.iter().any(suspends)
}

/// Whether any grant for the tenant, or for every tenant, counts less than the registry says.
pub fn reduces_grants(brakes: &[Brake], database: u32, tenant: &TenantId) -> bool {
    brakes.iter().any(|brake| brake.reduces_grants(database, tenant))
}

/// Roles whose grants for the tenant, or for every tenant, count less than the registry says.
pub fn reduced_roles(brakes: &[Brake], database: u32, tenant: &TenantId) -> Vec<u32> {
    let concerns = |brake: &&Brake| brake.reduces_grants(database, tenant);
    brakes.iter().filter(concerns).map(|brake| brake.role).collect()
}

/// Which parts of a grant do not count any more: (encrypt, decrypt). Without a tenant, of one for
/// every tenant.
pub fn taken_back(
    brakes: &[Brake],
    database: u32,
    tenant: Option<&TenantId>,
    role: u32,
) -> (bool, bool) {
    let tenant = tenant.copied().unwrap_or_default();
    let concerns = |brake: &&Brake| {
        brake.pid != 0
            && !brake.suspends
            && brake.role == role
            && brake.database == database
            && brake.tenant == tenant
    };
    brakes.iter().filter(concerns).fold((false, false), |(encrypt, decrypt), brake| {
        (encrypt || brake.encrypt, decrypt || brake.decrypt)
    })
}
