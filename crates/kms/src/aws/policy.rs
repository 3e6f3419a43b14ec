//! Reads a key policy for what it allows us beyond using the key (IAM User Guide, "IAM JSON policy
//! elements reference").
//!
//! For warnings, not for decisions, which are KMS's: a condition that can't be judged from here
//! counts as fulfilled in a statement that allows, and as not fulfilled in one that denies.

use crate::key_facts::PolicyView;
use cmk_error::{Reason, Result};
use serde_json::{Map, Value};

/// What changes a key or who may use it. Undoing what its owner did is among it.
const MANAGING: [&str; 12] = [
    "kms:CancelKeyDeletion",
    "kms:CreateGrant",
    "kms:DeleteImportedKeyMaterial",
    "kms:DisableKey",
    "kms:DisableKeyRotation",
    "kms:EnableKey",
    "kms:ImportKeyMaterial",
    "kms:PutKeyPolicy",
    "kms:ReplicateKey",
    "kms:RevokeGrant",
    "kms:ScheduleKeyDeletion",
    "kms:UpdatePrimaryRegion",
];

/// As whom we use the key.
pub struct Principal<'a> {
    /// The ARN of a user or role.
    pub arn: &'a str,
    /// Its account.
    pub account: &'a str,
}

/// How a statement names somebody.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Named {
    /// The account, whose identity policies decide.
    Account,
    /// Us.
    Exactly,
    /// Everybody.
    Anybody,
}

/// What the policy allows a principal of these.
///
/// # Errors
/// `kms_answer_mismatch` for what is no policy.
pub fn view(policy: &str, principal: &Principal<'_>) -> Result<PolicyView> {
    let policy: Value = serde_json::from_str(policy).map_err(|_| Reason::KmsAnswerMismatch)?;
    let statements: Vec<&Map<String, Value>> =
        one_or_many(&policy["Statement"]).filter_map(Value::as_object).collect();
    if statements.is_empty() {
        return Err(Reason::KmsAnswerMismatch.into());
    }
    let of_effect = |effect: &'static str| {
        let has = move |of: &&&Map<String, Value>| of.get("Effect").is_some_and(|it| it == effect);
        statements.iter().filter(has).filter_map(|statement| {
            let conditions = Conditions::of(statement, principal)?;
            Some((*statement, named(statement, principal)?, conditions))
        })
    };
    let mut view = PolicyView::default();
    for action in MANAGING {
        let denied = of_effect("Deny").any(|(statement, named, conditions)| {
            named != Named::Account && conditions == Conditions::None && covers(statement, action)
        });
        if denied {
            continue;
        }
        let allowed = of_effect("Allow").filter(|(statement, ..)| covers(statement, action));
        let allowed: Vec<_> = allowed.map(|(_, named, conditions)| (named, conditions)).collect();
        if allowed.iter().any(|(named, _)| *named != Named::Account) {
            view.allows.push(action);
        }
        if allowed.iter().any(|(named, _)| *named == Named::Account) {
            view.left_to_account = Some(principal.account.into());
        }
    }
    view.open_to_anybody = of_effect("Allow")
        .any(|(_, named, conditions)| named == Named::Anybody && conditions == Conditions::None);
    Ok(view)
}

/// Whether a statement has conditions that may or may not be fulfilled.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Conditions {
    None,
    Unjudged,
}

impl Conditions {
    /// `None` where they are certainly not fulfilled: for other accounts, or for requests that a
    /// service of AWS makes on somebody's behalf.
    fn of(statement: &Map<String, Value>, principal: &Principal<'_>) -> Option<Self> {
        let Some(operators) = statement.get("Condition").and_then(Value::as_object) else {
            return Some(Self::None);
        };
        for (operator, keys) in operators {
            let is = |names: &[&str]| names.iter().any(|name| operator.eq_ignore_ascii_case(name));
            for (key, values) in keys.as_object().into_iter().flatten() {
                let key = key.to_ascii_lowercase();
                let mut values = one_or_many(values).filter_map(Value::as_str);
                let excludes_us = match &*key {
                    "kms:calleraccount" | "aws:principalaccount" => {
                        is(&["StringEquals", "StringLike"])
                            && !values.any(|value| matches(value, principal.account))
                    }
                    "kms:viaservice" => is(&["StringEquals", "StringLike"]),
                    _ => false,
                };
                if excludes_us {
                    return None;
                }
            }
        }
        Some(if operators.is_empty() { Self::None } else { Self::Unjudged })
    }
}

/// How the statement's principals name us, if they do.
fn named(statement: &Map<String, Value>, principal: &Principal<'_>) -> Option<Named> {
    if let Some(others) = statement.get("NotPrincipal") {
        let is_among = principals(others).any(|name| one(name, principal).is_some());
        return (!is_among).then_some(Named::Anybody);
    }
    let all = principals(statement.get("Principal")?);
    all.filter_map(|name| one(name, principal)).max()
}

/// `"*"`, or those of AWS in an object. Services of AWS and identity providers are not us.
fn principals(value: &Value) -> impl Iterator<Item = &str> {
    let listed = if value.is_object() { &value["AWS"] } else { value };
    one_or_many(listed).filter_map(Value::as_str)
}

fn one(name: &str, principal: &Principal<'_>) -> Option<Named> {
    if name == "*" {
        return Some(Named::Anybody);
    }
    let is_root = name.strip_suffix(":root").and_then(|arn| arn.rsplit(':').next())
        == Some(principal.account);
    if name == principal.account || is_root {
        return Some(Named::Account);
    }
    // A session's ARN tells no path of its role, so that what we are known as may lack it.
    let last = |arn: &str| {
        let (head, name) = arn.rsplit_once('/')?;
        let (head, _path) = head.split_once('/').unwrap_or((head, ""));
        Some((head.to_owned(), name.to_owned()))
    };
    let same = name == principal.arn || last(name).is_some() && last(name) == last(principal.arn);
    same.then_some(Named::Exactly)
}

/// Whether the statement is about the action. Names are compared without regard to case.
fn covers(statement: &Map<String, Value>, action: &str) -> bool {
    let lists = |value: &Value| {
        one_or_many(value)
            .filter_map(Value::as_str)
            .any(|pattern| matches(&pattern.to_ascii_lowercase(), &action.to_ascii_lowercase()))
    };
    match (statement.get("Action"), statement.get("NotAction")) {
        (Some(actions), _) => lists(actions),
        (None, Some(others)) => !lists(others),
        (None, None) => false,
    }
}

fn one_or_many(value: &Value) -> impl Iterator<Item = &Value> {
    let many = value.as_array().map(Vec::as_slice);
    many.unwrap_or(std::slice::from_ref(value)).iter()
}

/// `*` stands for any text, `?` for one character.
fn matches(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
    let (mut p, mut t, mut star) = (0, 0, None);
    while t < text.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(&byte) if byte == b'?' || byte == text[t] => {
                p += 1;
                t += 1;
            }
            // Have the last star take one more.
            _ => match &mut star {
                Some((at, taken)) => {
                    *taken += 1;
                    (p, t) = (*at + 1, *taken);
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const US: Principal<'_> =
        Principal { arn: "arn:aws:iam::111122223333:role/cmk", account: "111122223333" };
    const ROOT: &str = "arn:aws:iam::111122223333:root";

    fn seen(statements: Value) -> PolicyView {
        view(&json!({"Version": "2012-10-17", "Statement": statements}).to_string(), &US).unwrap()
    }

    fn allowed(statements: Value) -> Vec<&'static str> {
        seen(statements).allows
    }

    fn allow(principal: Value, action: Value) -> Value {
        json!({"Effect": "Allow", "Principal": principal, "Action": action, "Resource": "*"})
    }

    #[test]
    fn using_a_key_is_not_managing_it() {
        let use_it =
            json!(["kms:Decrypt", "kms:GenerateDataKeyWithoutPlaintext", "kms:DescribeKey"]);
        let tenant = allow(json!({"AWS": "arn:aws:iam::444455556666:root"}), json!("kms:*"));
        let view = seen(json!([tenant, allow(json!({"AWS": US.arn}), use_it)]));
        assert_eq!(view, PolicyView::default());
    }

    #[test]
    fn wildcards_lists_and_case_are_understood() {
        let of = |action: Value| allowed(allow(json!({"AWS": [US.arn]}), action));
        assert_eq!(of(json!("kms:*")), MANAGING);
        assert_eq!(of(json!("*")), MANAGING);
        assert_eq!(of(json!("KMS:putkeypolicy")), ["kms:PutKeyPolicy"]);
        assert_eq!(
            of(json!(["kms:Put*", "kms:D?sableKey"])),
            ["kms:DisableKey", "kms:PutKeyPolicy"]
        );
        assert_eq!(of(json!("kms:*Grant")), ["kms:CreateGrant", "kms:RevokeGrant"]);
        assert!(of(json!("kms:Decrypt*")).is_empty());
        let not =
            json!({"Effect": "Allow", "Principal": {"AWS": US.arn}, "NotAction": "kms:Decrypt"});
        assert_eq!(allowed(not), MANAGING);
        let not =
            json!({"Effect": "Allow", "Principal": {"AWS": US.arn}, "NotAction": "kms:*Key*"});
        assert_eq!(allowed(not), ["kms:CreateGrant", "kms:RevokeGrant", "kms:UpdatePrimaryRegion"]);
    }

    #[test]
    fn we_are_named_in_many_ways() {
        let of = |principal: Value| seen(allow(principal, json!("kms:PutKeyPolicy")));
        let put = ["kms:PutKeyPolicy"];
        assert_eq!(of(json!("*")).allows, put);
        assert!(of(json!("*")).open_to_anybody);
        assert_eq!(of(json!({"AWS": "*"})).allows, put);
        assert_eq!(of(json!({"AWS": "arn:aws:iam::111122223333:role/a/path/cmk"})).allows, put);
        for other in [
            "arn:aws:iam::444455556666:role/cmk",
            "arn:aws:iam::111122223333:user/cmk",
            "arn:aws:iam::111122223333:role/other",
            "arn:aws:iam::444455556666:root",
            "444455556666",
        ] {
            assert_eq!(of(json!({"AWS": other})), PolicyView::default(), "{other}");
        }
        assert_eq!(of(json!({"Service": "s3.amazonaws.com"})), PolicyView::default());
        for account in [ROOT, US.account] {
            let view = of(json!({"AWS": account}));
            assert_eq!(view.left_to_account.as_deref(), Some(US.account));
            assert!(view.allows.is_empty() && !view.open_to_anybody);
        }
        let not = json!({"Effect": "Allow", "NotPrincipal": {"AWS": US.arn}, "Action": "kms:*"});
        assert!(allowed(not).is_empty());
    }

    #[test]
    fn a_denial_counts_without_conditions_only() {
        let all = allow(json!({"AWS": US.arn}), json!("kms:*"));
        let mut deny = allow(json!("*"), json!(["kms:*Key*", "kms:*Grant", "kms:Update*"]));
        deny["Effect"] = json!("Deny");
        assert!(allowed(json!([all, deny])).is_empty());
        deny["Condition"] = json!({"Bool": {"aws:MultiFactorAuthPresent": "false"}});
        assert_eq!(allowed(json!([all, deny])), MANAGING);
    }

    #[test]
    fn conditions_that_exclude_us_are_seen() {
        let of = |condition: Value| {
            let mut statement = allow(json!({"AWS": "*"}), json!("kms:CreateGrant"));
            statement["Condition"] = condition;
            let view = seen(statement);
            assert!(!view.open_to_anybody);
            view.allows
        };
        let grant = ["kms:CreateGrant"];
        let via = json!({"StringEquals": {"kms:ViaService": "ec2.us-east-1.amazonaws.com"}});
        assert!(of(via).is_empty());
        assert!(of(json!({"StringEquals": {"kms:CallerAccount": "444455556666"}})).is_empty());
        let ours = json!({"StringEquals": {"kms:CallerAccount": ["444455556666", US.account]}});
        assert_eq!(of(ours), grant);
        assert_eq!(of(json!({"IpAddress": {"aws:SourceIp": "192.0.2.0/24"}})), grant);
    }

    #[test]
    fn what_is_no_policy_is_refused() {
        for text in ["", "[]", "{}", "null", r#"{"Statement": []}"#, r#"{"Statement": "x"}"#] {
            assert_eq!(view(text, &US).unwrap_err().reason, Reason::KmsAnswerMismatch, "{text}");
        }
    }
}
