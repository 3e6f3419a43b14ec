use super::*;
use cmk_crypto::key::SecretKey;

/// With data keys of the given versions, the last of which is current.
fn tenant(versions: &[i32]) -> Tenant {
    let data_key = |&version: &i32| DataKey {
        version,
        purpose: Purpose::Values,
        state: DataKeyState::Retired,
        commitment: commitment(version),
        wrapped: Some([1].into()),
    };
    let mut tenant = Tenant {
        name: "acme".into(),
        state: TenantState::Active,
        epoch: 0,
        customer_key: CustomerKey::parse("local:k", "{}", 0).unwrap(),
        last_version: versions.iter().copied().max().unwrap_or(0),
        data_keys: versions.iter().map(data_key).collect(),
    };
    if let Some(last) = tenant.data_keys.last_mut() {
        last.state = DataKeyState::Current;
    }
    tenant
}

fn commitment(version: i32) -> Commitment {
    Commitment::to(&SecretKey::from_slice(&[version as u8; 32]).unwrap(), b"acme")
}

fn reason<T>(result: Result<T>) -> Option<Reason> {
    result.err().map(|error| error.reason)
}

#[test]
fn states_are_written_and_read_back_by_the_names_of_the_registry() {
    use TenantState::{Active, Pending, Shredded, Suspended};
    for (state, name) in
        [(Pending, "pending"), (Active, "active"), (Suspended, "suspended"), (Shredded, "shredded")]
    {
        assert_eq!((state.name(), TenantState::from_name(name)), (name, Some(state)));
    }
    assert_eq!(TenantState::from_name("Active"), None);
    use DataKeyState::{Current, Destroyed, Retired};
    let names = ["current", "retired", "destroyed", "gone"];
    assert_eq!(
        names.map(DataKeyState::from_name),
        [Some(Current), Some(Retired), Some(Destroyed), None]
    );
}

#[test]
fn only_an_active_tenant_seals_and_opens() {
    use TenantState::{Active, Pending, Shredded, Suspended};
    assert_eq!(Active.require_active(), Ok(()));
    assert_eq!(Pending.require_active(), Err(Reason::TenantPending));
    assert_eq!(Suspended.require_active(), Err(Reason::TenantSuspended));
    assert_eq!(Shredded.require_active(), Err(Reason::TenantShredded));
}

#[test]
fn a_data_key_for_anything_but_values_seals_and_opens_none() {
    let mut of = tenant(&[1, 2]);
    assert_eq!(of.data_key(commitment(1).dek_id()).unwrap().version, 1);
    assert_eq!(of.current_data_key().unwrap().version, 2);
    assert_eq!(reason(of.data_key(commitment(3).dek_id())), Some(Reason::UnknownDataKey));
    of.data_keys[0].purpose = Purpose::Index;
    of.data_keys[1].purpose = Purpose::Index;
    assert_eq!(reason(of.data_key(commitment(1).dek_id())), Some(Reason::UnknownDataKey));
    assert_eq!(reason(of.current_data_key()), Some(Reason::DataKeysMissing));
    assert_eq!(of.current(Purpose::Index).unwrap().version, 2);
    assert!(of.current(Purpose::Values).is_none());
}

#[test]
fn a_data_key_that_the_registry_lost_is_not_called_unknown() {
    let mut of = tenant(&[1, 3]);
    assert_eq!(reason(of.data_key(commitment(2).dek_id())), Some(Reason::DataKeysMissing));
    assert_eq!(reason(of.require_all_data_keys()), Some(Reason::DataKeysMissing));
    assert_eq!(reason(of.next_version()), Some(Reason::DataKeysMissing));
    // One with a later version doesn't stand in for it.
    of.last_version = 2;
    assert_eq!(reason(of.require_all_data_keys()), Some(Reason::DataKeysMissing));
    assert_eq!(reason(tenant(&[1, 2, 3]).require_all_data_keys()), None);
}

#[test]
fn a_tenant_past_pending_has_a_data_key() {
    let mut of = tenant(&[]);
    assert_eq!(reason(of.require_all_data_keys()), Some(Reason::DataKeysMissing));
    assert_eq!(reason(of.current_data_key()), Some(Reason::DataKeysMissing));
    of.state = TenantState::Pending;
    assert_eq!(reason(of.require_all_data_keys()), None);
    assert_eq!(reason(of.current_data_key()), Some(Reason::TenantPending));
}

#[test]
fn no_version_number_is_given_twice() {
    assert_eq!(tenant(&[1, 2]).next_version().unwrap(), 3);
    let mut of = tenant(&[1, 2, 3]);
    of.last_version = 2;
    assert_eq!(of.next_version().unwrap(), 4, "the registry has a newer one than it says");
    let mut pending = tenant(&[]);
    pending.state = TenantState::Pending;
    assert_eq!(pending.next_version().unwrap(), 1);
    let mut used_up = tenant(&[1]);
    used_up.data_keys[0].version = i32::MAX;
    used_up.last_version = 0;
    used_up.state = TenantState::Pending;
    assert_eq!(reason(used_up.next_version()), Some(Reason::TenantStateConflict));
}

#[test]
fn errors_name_the_tenant() {
    let error = tenant(&[]).current_data_key().unwrap_err();
    assert!(error.message().contains("acme"), "{}", error.message());
}

#[test]
fn a_tenant_name_can_be_seen_and_is_of_bounded_length() {
    let longest = "é".repeat(127) + "x";
    for name in ["a", "*a", "Zoë & Co", &longest] {
        assert!(check_tenant_name(name).is_ok(), "{name}");
    }
    let too_long = "é".repeat(128);
    // A line break, a soft hyphen, a right-to-left override, a line and a paragraph separator.
    let invisible = ["a\nb", "a\u{AD}b", "a\u{202E}b", "a\u{2028}b", "a\u{2029}b"];
    for name in invisible.into_iter().chain(["", "*", &too_long]) {
        assert_eq!(reason(check_tenant_name(name)), Some(Reason::TenantName), "{name:?}");
    }
    for name in ["", "*", "a\nb", &longest] {
        assert!(check_tenant_name_length(name).is_ok(), "{name:?}");
    }
    assert_eq!(reason(check_tenant_name_length(&too_long)), Some(Reason::TenantName));
}
