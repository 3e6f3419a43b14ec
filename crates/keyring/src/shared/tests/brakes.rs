//! What takes effect before its transaction can commit, and for how long.

use super::*;
use crate::shared::brake::{self, is_suspended, reduced_roles, reduces_grants, taken_back};

const DATABASE: u32 = 5;
const ROLE: u32 = 10;

fn tenant(id: u8) -> TenantId {
    TenantId([id; 16])
}

/// Takes the right to encrypt from ROLE, for tenant 1.
fn revocation() -> Brake {
    Brake::revocation(DATABASE, Some(tenant(1)), ROLE, (true, false))
}

fn suspension() -> Brake {
    Brake::suspension(DATABASE, tenant(1))
}

#[test]
fn a_suspension_is_of_one_tenant_of_one_database() {
    let on = [Brake::default(), suspension().by(7, 1)];
    assert!(is_suspended(&on, DATABASE, &tenant(1)));
    assert!(!is_suspended(&on, DATABASE, &tenant(2)));
    assert!(!is_suspended(&on, DATABASE + 1, &tenant(1)));
    assert!(!is_suspended(&[suspension()], DATABASE, &tenant(1)), "nobody pulled it");
    assert!(!is_suspended(&[revocation().by(7, 1)], DATABASE, &tenant(1)));
    assert!(!is_suspended(&[], DATABASE, &tenant(1)));
}

#[test]
fn a_grant_is_taken_back_from_one_role_for_one_tenant_of_one_database() {
    let on = [Brake::default(), revocation().by(7, 1)];
    let taken = |brakes: &[Brake], database, id, role| {
        taken_back(brakes, database, Some(&tenant(id)), role)
    };
    assert_eq!(taken(&on, DATABASE, 1, ROLE), (true, false));
    assert_eq!(taken(&on, DATABASE + 1, 1, ROLE), (false, false));
    assert_eq!(taken(&on, DATABASE, 2, ROLE), (false, false));
    assert_eq!(taken(&on, DATABASE, 1, ROLE + 1), (false, false));
    assert_eq!(taken_back(&on, DATABASE, None, ROLE), (false, false), "of every tenant");
    assert_eq!(taken(&[revocation()], DATABASE, 1, ROLE), (false, false), "nobody pulled it");
    let suspended = suspension().by(7, 1);
    assert_eq!(taken(&[suspended], DATABASE, 1, 0), (false, false));
}

#[test]
fn both_halves_of_a_grant_add_up() {
    let half = |halves| Brake::revocation(DATABASE, Some(tenant(1)), ROLE, halves).by(7, 1);
    let (encrypt, decrypt) = (half((true, false)), half((false, true)));
    let taken = |brakes: &[Brake]| taken_back(brakes, DATABASE, Some(&tenant(1)), ROLE);
    assert_eq!(taken(&[encrypt]), (true, false));
    assert_eq!(taken(&[decrypt]), (false, true));
    assert_eq!(taken(&[encrypt, decrypt]), (true, true));
    assert_eq!(taken(&[decrypt, encrypt]), (true, true));
}

#[test]
fn a_grant_for_every_tenant_concerns_each_of_them() {
    let on = [Brake::revocation(DATABASE, None, ROLE, (true, true)).by(7, 1)];
    assert_eq!(taken_back(&on, DATABASE, None, ROLE), (true, true));
    // A grant for this one alone is another one, and stays.
    assert_eq!(taken_back(&on, DATABASE, Some(&tenant(1)), ROLE), (false, false));
    assert!((1..5).all(|id| reduces_grants(&on, DATABASE, &tenant(id))));
    assert_eq!(reduced_roles(&on, DATABASE, &tenant(3)), [ROLE]);
}

#[test]
fn whose_grants_count_less_is_known_without_asking_for_each_role() {
    let other = Brake::revocation(DATABASE, Some(tenant(2)), ROLE + 1, (false, true)).by(8, 1);
    let on = [Brake::default(), revocation().by(7, 1), suspension().by(7, 1), other];
    assert_eq!(reduced_roles(&on, DATABASE, &tenant(1)), [ROLE]);
    assert_eq!(reduced_roles(&on, DATABASE, &tenant(2)), [ROLE + 1]);
    assert!(reduced_roles(&on, DATABASE, &tenant(3)).is_empty());
    assert!(reduces_grants(&on, DATABASE, &tenant(1)));
    assert!(!reduces_grants(&on, DATABASE, &tenant(3)));
    assert!(!reduces_grants(&on, DATABASE + 1, &tenant(1)));
    assert!(!reduces_grants(&[revocation()], DATABASE, &tenant(1)), "nobody pulled it");
    assert!(!reduces_grants(&[suspension().by(7, 1)], DATABASE, &tenant(1)));
}

/// Four places, and what every process must look at.
fn memory() -> Memory {
    Memory::new(1, 0)
}

impl Memory {
    fn pull(&mut self, brake: Brake) {
        brake::pull(&mut self.brakes, &self.counters, brake);
    }

    fn lift(&mut self, pid: u32, level: i32) {
        brake::lift(&mut self.brakes, &self.counters, pid, level);
    }

    fn suspends(&self, id: u8) -> bool {
        is_suspended(&self.brakes, DATABASE, &tenant(id))
    }
}

fn suspension_of(id: u8) -> Brake {
    Brake::suspension(DATABASE, tenant(id))
}

#[test]
fn a_brake_that_finds_no_room_takes_no_others_place() {
    let mut memory = memory();
    for id in 1..=4 {
        memory.pull(suspension_of(id).by(u32::from(id), 1));
        assert_eq!(memory.notices(), u64::from(id), "every process has to look");
    }
    memory.pull(suspension_of(5).by(5, 1));
    assert_eq!(memory.notices(), 4);
    assert!((1..=4).all(|id| memory.suspends(id)) && !memory.suspends(5));
    memory.lift(2, 1);
    memory.pull(suspension_of(5).by(5, 1));
    assert!(memory.suspends(5) && !memory.suspends(2));
}

#[test]
fn brakes_of_one_process_are_not_lifted_by_another() {
    let mut memory = memory();
    memory.pull(suspension_of(1).by(7, 1));
    memory.lift(8, 1);
    memory.lift(8, 0);
    assert!(memory.suspends(1));
    assert_eq!(memory.notices(), 1, "nothing changed");
    memory.lift(7, 1);
    assert!(!memory.suspends(1));
    assert_eq!(memory.notices(), 2);
}

#[test]
fn who_looks_is_whom_a_brake_concerns() {
    let mut memory = memory();
    let of = |memory: &Memory| [1, 2].map(|id| memory.counters.notices_of(&tenant(id)));
    memory.pull(suspension_of(1).by(7, 1));
    assert_eq!(of(&memory), [1, 0]);
    memory.pull(Brake::revocation(DATABASE, None, ROLE, (true, true)).by(7, 1));
    assert_eq!(of(&memory), [2, 1]);
    memory.lift(7, 1);
    assert_eq!(of(&memory), [4, 2]);
    assert_eq!(memory.notices(), 4);
}

#[test]
fn what_a_subtransaction_undoes_is_its_own_and_what_is_inside_it() {
    let mut memory = memory();
    for level in 1..=3 {
        memory.pull(suspension_of(level).by(7, level.into()));
    }
    memory.lift(7, 2);
    assert_eq!([1, 2, 3].map(|id| memory.suspends(id)), [true, false, false]);
    assert_eq!(memory.notices(), 5, "one for each that was lifted");
    memory.lift(7, 1);
    assert!(!memory.suspends(1));
}

#[test]
fn what_a_released_subtransaction_did_belongs_to_the_one_around_it() {
    let mut memory = memory();
    memory.pull(suspension_of(1).by(7, 3));
    memory.pull(suspension_of(2).by(8, 3));
    memory.pull(suspension_of(3).by(7, 1));
    brake::keep(&mut memory.brakes, 7, 2);
    assert_eq!(memory.notices(), 3, "nothing changed for others");
    // It is one of level 1 now: undoing level 2 undoes it no more.
    memory.lift(7, 2);
    memory.lift(8, 4);
    assert!(memory.suspends(1) && memory.suspends(2) && memory.suspends(3));
    // That of another process stayed where it was.
    memory.lift(8, 3);
    assert!(memory.suspends(1) && !memory.suspends(2) && memory.suspends(3));
    memory.lift(7, 1);
    assert!(!memory.suspends(1) && !memory.suspends(3));
}

#[test]
fn a_brake_at_the_very_level_that_is_released_is_kept() {
    let mut memory = memory();
    memory.pull(suspension_of(1).by(7, 2));
    brake::keep(&mut memory.brakes, 7, 2);
    memory.lift(7, 2);
    assert!(memory.suspends(1));
    memory.lift(7, 1);
    assert!(!memory.suspends(1));
}
