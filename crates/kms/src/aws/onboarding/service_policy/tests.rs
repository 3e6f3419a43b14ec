use super::*;
use crate::customer_key::CustomerKey;
use serde_json::{Value, json};

fn uri(account: u64, id: u64) -> String {
    format!("arn:aws:kms:eu-west-1:{account:012}:key/1234abcd-0000-0000-0000-{id:012x}")
}

fn direct(account: u64, id: u64) -> CustomerKey {
    CustomerKey::parse(&uri(account, id), "{}", 0).unwrap()
}

fn assumed(account: u64, id: u64) -> CustomerKey {
    let role = format!("arn:aws:iam::{account:012}:role/cmk");
    let options = format!(r#"{{"role_arn": "{role}", "external_id": "tenant-{id}"}}"#);
    CustomerKey::parse(&uri(account, id), &options, 0).unwrap()
}

fn policy_of(keys: &[CustomerKey]) -> Policy {
    let tenants: Vec<_> = (0..keys.len()).map(|number| format!("tenant-{number}")).collect();
    let uses = keys.iter().zip(&tenants);
    let uses =
        uses.map(|(key, tenant)| KeyUse { tenant, key, next: None, purposes: &Purpose::ALL });
    service_policy(&uses.collect::<Vec<_>>()).unwrap()
}

/// Of a policy's first statement, which is about use or roles.
fn first(keys: &[CustomerKey], member: &str) -> Value {
    policy_of(keys).to_json()["Statement"][0][member].clone()
}

fn keys(number: u64, accounts: u64, key: fn(u64, u64) -> CustomerKey) -> Vec<CustomerKey> {
    (0..number).map(|id| key(1 + id % accounts, id)).collect()
}

#[test]
fn each_tenant_has_a_statement_while_there_is_room() {
    let policy = policy_of(&keys(2, 2, direct)).to_json();
    let statements = policy["Statement"].as_array().unwrap();
    let sids: Vec<_> = statements.iter().map(|it| it["Sid"].as_str().unwrap()).collect();
    assert_eq!(sids, ["CmkEncryptUse1", "CmkEncryptUse2", "CmkEncryptWatch"]);
    assert_eq!(statements[1]["Resource"], uri(2, 1));
    let context = "kms:EncryptionContext:tenant";
    assert_eq!(statements[1]["Condition"]["StringEquals"][context], "tenant-1");
    assert_eq!(statements[2]["Resource"], json!([uri(1, 0), uri(2, 1)]));
}

#[test]
fn with_more_tenants_the_policy_says_less() {
    assert_eq!(
        first(&keys(30, 30, direct), "Resource"),
        json!(keys(30, 30, direct).iter().map(CustomerKey::uri).collect::<Vec<_>>())
    );
    let resource = first(&keys(500, 1, direct), "Resource");
    assert_eq!(resource, "arn:aws:kms:eu-west-1:000000000001:key/*");
    let resource = first(&keys(500, 50, direct), "Resource");
    assert_eq!(resource.as_array().unwrap().len(), 50);
    assert_eq!(first(&keys(500, 500, direct), "Resource"), "arn:aws:kms:*:*:key/*");
    // Whichever keys: only with contexts of ours.
    let condition = first(&keys(500, 500, direct), "Condition");
    assert_eq!(condition["StringEquals"]["kms:EncryptionContext:cmk_encrypt"], "v1");
    let names = &condition["ForAllValues:StringEquals"]["kms:EncryptionContextKeys"];
    assert_eq!(names, &json!(["cmk_encrypt", "purpose", "tenant"]));
}

#[test]
fn roles_take_an_external_id_however_many_there_are() {
    let two = policy_of(&keys(2, 2, assumed)).to_json();
    let statements = two["Statement"].as_array().unwrap();
    assert_eq!(statements.len(), 2);
    assert_eq!(statements[1]["Resource"], "arn:aws:iam::000000000002:role/cmk");
    assert_eq!(statements[1]["Condition"], json!({"StringEquals": {"sts:ExternalId": "tenant-1"}}));
    assert_eq!(first(&keys(500, 500, assumed), "Resource"), "arn:aws:iam::*:role/*");
    let condition = first(&keys(500, 500, assumed), "Condition");
    assert_eq!(condition, json!({"Null": {"sts:ExternalId": "false"}}));
}

#[test]
fn every_number_of_tenants_fits() {
    assert_eq!(policy_of(&[]).to_json()["Statement"], json!([]));
    for number in [1, 8, 12, 13, 30, 60, 120, 1_000, 10_000] {
        for accounts in [1, 60, 10_000] {
            for key in [direct, assumed] {
                let size = policy_of(&keys(number, accounts, key)).size();
                assert!(size <= SIZE_MAX, "{number} tenants, {accounts} accounts: {size}");
            }
        }
    }
}

#[test]
fn a_move_to_another_key_takes_both() {
    let (key, next) = (direct(1, 1), direct(2, 2));
    let purposes = &[Purpose::Values];
    let used = [KeyUse { tenant: "globex", key: &key, next: Some(&next), purposes }];
    let policy = service_policy(&used).unwrap().to_json();
    let actions: Vec<_> = policy["Statement"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| (it["Action"].clone(), it["Resource"].clone()))
        .collect();
    assert_eq!(
        actions,
        [
            (json!(USE), json!(uri(1, 1))),
            (json!("kms:ReEncryptFrom"), json!(uri(1, 1))),
            (json!(USE), json!(uri(2, 2))),
            (json!(["kms:ReEncryptTo", "kms:Encrypt"]), json!(uri(2, 2))),
            (json!(WATCH), json!([uri(1, 1), uri(2, 2)])),
        ]
    );
}
