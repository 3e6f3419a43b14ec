//! Who may do what: grants are of the role, and of the roles that started the query.

use super::process::{FakeProcess, open, seal};
use crate::keyring::Keyring;
use crate::tenant::{Grant, Right, Role};
use cmk_error::Reason;

const ENCRYPT: Grant = Grant { encrypt: Right::Always, decrypt: Right::Never };
const DECRYPT: Grant = Grant { encrypt: Right::Never, decrypt: Right::Always };

/// With a value that role 10, who may do everything, has sealed.
fn sealed() -> (Keyring, FakeProcess, Vec<u8>) {
    let (keyring, process) = (Keyring::new(), FakeProcess::new(&["acme"]));
    let sealed = seal(&keyring, &process, "acme").unwrap();
    process.grant.set(Grant::default());
    (keyring, process, sealed)
}

fn reason_of_seal(keyring: &Keyring, process: &FakeProcess) -> Option<Reason> {
    seal(keyring, process, "acme").err().map(|error| error.reason)
}

#[test]
fn a_role_with_encrypt_only_can_not_open() {
    let (keyring, process, sealed) = sealed();
    process.role.set(Role(11));
    process.grants.borrow_mut().insert(Role(11), ENCRYPT);
    assert_eq!(open(&keyring, &process, "acme", &sealed), Err(Reason::NoGrant));
    assert_eq!(reason_of_seal(&keyring, &process), None);
}

#[test]
fn a_role_with_decrypt_only_can_not_seal() {
    let (keyring, process, sealed) = sealed();
    process.role.set(Role(11));
    process.grants.borrow_mut().insert(Role(11), DECRYPT);
    assert_eq!(reason_of_seal(&keyring, &process), Some(Reason::NoGrant));
    open(&keyring, &process, "acme", &sealed).unwrap();
}

#[test]
fn either_half_of_a_grant_allows_to_warm_and_none_does_not() {
    let (keyring, process, _) = sealed();
    for (role, grant, allowed) in
        [(11, ENCRYPT, true), (12, DECRYPT, true), (13, Grant::default(), false)]
    {
        process.role.set(Role(role));
        process.grants.borrow_mut().insert(Role(role), grant);
        assert_eq!(keyring.warm(&process, "acme").is_ok(), allowed, "role {role}");
    }
}

#[test]
fn what_one_role_may_do_is_not_what_another_may() {
    let (keyring, process, sealed) = sealed();
    process.role.set(Role(11));
    assert_eq!(open(&keyring, &process, "acme", &sealed), Err(Reason::NoGrant));
    process.role.set(Role(10));
    open(&keyring, &process, "acme", &sealed).unwrap();
    process.role.set(Role(11));
    assert_eq!(open(&keyring, &process, "acme", &sealed), Err(Reason::NoGrant));
    assert_eq!(process.grant_reads.get(), 2, "what a role may do was asked again");
}

#[test]
fn a_bound_grant_counts_while_the_session_names_the_tenant() {
    let (keyring, process, sealed) = sealed();
    let bound = Grant { encrypt: Right::Bound, decrypt: Right::Bound };
    process.grants.borrow_mut().insert(Role(11), bound);
    process.role.set(Role(11));
    for (named, expected) in [
        ("", Err(Reason::TenantMismatch)),
        ("globex", Err(Reason::TenantMismatch)),
        ("acme", Ok(())),
        ("acmeacme", Err(Reason::TenantMismatch)),
    ] {
        process.session_tenant.set(named);
        let opened = open(&keyring, &process, "acme", &sealed).map(|_| ());
        assert_eq!(opened, expected, "{named:?}");
        assert_eq!(reason_of_seal(&keyring, &process), expected.err(), "{named:?}");
        let warmed = keyring.warm(&process, "acme").map(|_| ()).map_err(|error| error.reason);
        assert_eq!(warmed, expected, "{named:?}");
    }
    // Whoever started the query is bound, too.
    process.role.set(Role(10));
    open(&keyring, &process, "acme", &sealed).unwrap();
    process.starters.set([Some(Role(11)), None]);
    assert_eq!(open(&keyring, &process, "acme", &sealed), Err(Reason::TenantMismatch));
    // Half of a grant may be bound, the other not be there.
    process.starters.set([None, None]);
    process.role.set(Role(12));
    let half = Grant { encrypt: Right::Bound, decrypt: Right::Never };
    process.grants.borrow_mut().insert(Role(12), half);
    assert_eq!(open(&keyring, &process, "acme", &sealed), Err(Reason::NoGrant));
    assert_eq!(reason_of_seal(&keyring, &process), Some(Reason::TenantMismatch));
}

#[test]
fn a_query_opens_nothing_that_the_role_who_started_it_may_not() {
    let (keyring, process, sealed) = sealed();
    process.grants.borrow_mut().insert(Role(11), ENCRYPT);
    for starters in
        [[Some(Role(11)), None], [None, Some(Role(11))], [Some(Role(10)), Some(Role(11))]]
    {
        process.starters.set(starters);
        assert_eq!(open(&keyring, &process, "acme", &sealed), Err(Reason::NoGrant));
        assert_eq!(reason_of_seal(&keyring, &process), None);
    }
    process.starters.set([Some(Role(10)), None]);
    open(&keyring, &process, "acme", &sealed).unwrap();
    // And the other way round: who may is of no use to who may not.
    process.role.set(Role(11));
    assert_eq!(open(&keyring, &process, "acme", &sealed), Err(Reason::NoGrant));
    assert_eq!(process.grant_reads.get(), 2, "each role is asked for once");
}
