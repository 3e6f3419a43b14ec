//! Whether a tenant's key does what it must: what KMS says is told, not raised, and nothing is
//! changed or kept.
//!
//! Costs a call for what there is to know of the key, one for its policy, one for grants, one to
//! wrap, one unwrap for each data key, and one that KMS is to refuse.

use super::audit::{Act, record};
use crate::pg::process::{THIS_PROCESS, keyring};
use crate::pg::registry::read;
use crate::pg::{clock, report};
use cmk_error::{Error, Reason, Result};
use cmk_keyring::process::Process;
use cmk_keyring::tenant::{DataKeyState, Tenant, TenantState};
use cmk_keyring::trial::OtherContext;
use cmk_keyring::unwrap::WrappedDataKey;
use cmk_kms::{KeyFacts, Kms, Management, Purpose};
use serde_json::json;

/// What came of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// As it should be, or there is no such thing.
    Ok,
    /// It works; somebody should look.
    Warning,
    /// It doesn't work.
    Failed,
}

impl Status {
    /// As SQL shows it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Failed => "failed",
        }
    }
}

/// A row of the result.
pub struct Check {
    pub name: &'static str,
    pub status: Status,
    /// Without it the tenant isn't activated, or its values can't all be used.
    pub required: bool,
    pub seen: String,
    /// What to do; none if it is as it should be.
    pub advice: Option<String>,
}

/// Days before imported key material expires from which to warn.
const EXPIRY_NOTICE: i64 = 30 * 86_400;

/// Makes every check that there is.
///
/// # Errors
/// `unknown_tenant`, `tenant_shredded`, and the other errors of the registry. None of KMS.
pub fn verify(tenant: &str) -> Result<Vec<Check>> {
    let registered = read::require_tenant(tenant)?;
    if registered.state == TenantState::Shredded {
        return Err(Error::new(Reason::TenantShredded).for_tenant(tenant));
    }
    let kms = THIS_PROCESS.kms(None);
    let facts = kms.describe(&registered.customer_key);
    let used = use_key(&registered);
    let mut checks = Vec::new();
    of_facts(&mut checks, &registered, &facts, used.comes_back.as_ref().map(drop));
    of_use(&mut checks, &registered, used);
    of_permissions(&mut checks, &facts, &kms.management(&registered.customer_key));
    let names = |status| {
        let found = checks.iter().filter(|check| check.status == status);
        found.map(|check| check.name).collect::<Vec<_>>()
    };
    let after = json!({ "failed": names(Status::Failed), "warnings": names(Status::Warning) });
    record(&Act {
        act: "verify_tenant",
        tenant: Some(tenant),
        data_key: None,
        before: None,
        after: Some(after),
    });
    Ok(checks)
}

/// What is required of a key before its tenant is activated, beyond that it wraps and unwraps, as
/// it just has: that what it wrapped for this tenant does not unwrap for another.
///
/// # Errors
/// `verification_failed`; what KMS fails with.
pub fn require_binding(tenant: &Tenant, made: &WrappedDataKey) -> Result<()> {
    let (process, purpose) = (&THIS_PROCESS, Purpose::Values);
    let tried = keyring().try_other_context(process, tenant, &made.wrapped, purpose);
    match tried.map_err(|error| error.for_tenant(&tenant.name))? {
        OtherContext::RefusedByBinding | OtherContext::RefusedByPolicy => Ok(()),
        OtherContext::Accepted => {
            let failed = Error::new(Reason::VerificationFailed).for_tenant(&tenant.name);
            Err(failed.with_info(format!("failed={CONTEXT}")))
        }
    }
}

const CONTEXT: &str = "encryption_context";

/// What came of using the key.
struct Used {
    wrapped: Result<Vec<u8>>,
    /// Of the data key that seals now, or, if there is none, of one that was made for the purpose.
    comes_back: Result<()>,
    /// Each data key that isn't destroyed, by version.
    data_keys: Vec<(i32, Purpose, Result<()>)>,
    other_context: Result<OtherContext>,
}

fn use_key(tenant: &Tenant) -> Used {
    let (process, purpose) = (&THIS_PROCESS, Purpose::Values);
    let wrapped = keyring().try_generate(process, tenant, purpose);
    let mut rows: Vec<_> =
        tenant.data_keys.iter().filter(|key| key.state != DataKeyState::Destroyed).collect();
    rows.sort_unstable_by_key(|key| key.version);
    let mut data_keys = Vec::new();
    // What KMS says of the key it would say of each of its data keys.
    let mut refused = None;
    for row in rows {
        let tried = match &refused {
            Some(error) => Err(Error::clone(error)),
            None => keyring().try_unwrap(process, tenant, row),
        };
        refused =
            refused.or_else(|| tried.clone().err().filter(|it| it.reason.key_state().is_some()));
        data_keys.push((row.version, row.purpose, tried));
    }
    let comes_back = match (&wrapped, data_keys.first()) {
        (_, Some(_)) if data_keys.iter().any(|(_, _, tried)| tried.is_ok()) => Ok(()),
        (_, Some((_, _, tried))) => tried.clone(),
        (Ok(wrapped), None) => keyring().try_unwrap_new(process, tenant, wrapped, purpose),
        (Err(error), None) => Err(error.clone()),
    };
    let good = data_keys.iter().find(|(_, _, tried)| tried.is_ok()).map(|(version, ..)| *version);
    let stored = tenant.data_keys.iter().find(|key| Some(key.version) == good);
    let stored = stored.and_then(|key| Some((key.wrapped.as_deref()?, key.purpose)));
    let any = wrapped.as_deref().ok().map(|wrapped| (wrapped, purpose)).or(stored);
    let other_context = match (&comes_back, any) {
        (Ok(()), Some((wrapped, purpose))) => {
            keyring().try_other_context(process, tenant, wrapped, purpose)
        }
        (Ok(()), None) => Err(Reason::DataKeysMissing.into()),
        (Err(error), _) => Err(error.clone()),
    };
    Used { wrapped, comes_back, data_keys, other_context }
}

fn of_facts(
    checks: &mut Vec<Check>,
    tenant: &Tenant,
    facts: &Result<KeyFacts>,
    works: Result<(), &Error>,
) {
    let facts = match facts {
        Ok(facts) => facts,
        Err(error) => {
            for name in ["key_exists", "key_enabled", "key_kind", "key_place"] {
                checks.push(failed(name, error));
            }
            return;
        }
    };
    // Where KMS does not tell, that it did what it was asked tells as much.
    let by_use = |name| match works {
        Ok(()) => passed(name, "not told, but KMS uses it"),
        Err(error) => failed(name, error),
    };
    let required = |name, seen: String, is_ok: bool, advice: &str| match is_ok {
        true => passed(name, seen),
        false => {
            Check { status: Status::Failed, advice: Some(advice.into()), ..passed(name, seen) }
        }
    };
    checks.push(match &facts.state {
        Some(state) => passed("key_exists", format!("state {state}")),
        None => by_use("key_exists"),
    });
    let state = facts.state.as_deref().unwrap_or("not told");
    checks.push(match facts.enabled {
        Some(enabled) => {
            required("key_enabled", state.into(), enabled, Reason::KeyDisabled.entry().hint)
        }
        None => by_use("key_enabled"),
    });
    let kind = facts.kind.as_deref().unwrap_or("of the kind that wraps").to_owned();
    let usable = facts.can_wrap.map(|can| can && facts.owner_managed != Some(false));
    checks.push(match usable {
        Some(usable) => required("key_kind", kind, usable, Reason::KeyUnusable.entry().hint),
        None => by_use("key_kind"),
    });
    let uri = tenant.customer_key.uri();
    checks.push(match (&facts.account, &facts.region) {
        (Some(account), Some(region)) => {
            let mut parts = uri.split(':').skip(3);
            let is_there = parts.next() == Some(region) && parts.next() == Some(account);
            let advice = "KMS described another key than the one that is registered: look at what \
                          stands between this server and KMS.";
            let seen = format!("account {account}, Region {region}");
            required("key_place", seen, is_there, advice)
        }
        _ => by_use("key_place"),
    });
    let now = clock::wall() / 1_000_000;
    let origin = facts.origin.as_deref().unwrap_or("not told");
    checks.push(match facts.material_expires_at {
        Some(at) => Check {
            status: if at < now + EXPIRY_NOTICE { Status::Warning } else { Status::Ok },
            advice: Some("The owner has to import the same key material again before then.".into()),
            ..noted("key_origin", format!("{origin}, expires at {}", report::utc(at)))
        },
        None => noted("key_origin", origin),
    });
    checks.push(noted(
        "multi_region",
        match facts.multi_region {
            Some(true) => format!("yes: {}", facts.replicas.join(", ")),
            Some(false) => "no".into(),
            None => "not told".to_owned(),
        },
    ));
    checks.push(match (facts.rotates, facts.rotation_days) {
        (Some(true), Some(days)) => noted("rotation", format!("every {days} days")),
        (Some(true), None) => noted("rotation", "on"),
        (Some(false), _) => Check {
            status: Status::Warning,
            advice: Some("Ask the owner to enable automatic rotation of the key.".into()),
            ..noted("rotation", "off")
        },
        (None, _) => noted("rotation", "not told"),
    });
    let when = facts.deletion_at.map(|at| format!("for {}", report::utc(at)));
    checks.push(match facts.deletion_is_scheduled {
        true => Check {
            status: Status::Failed,
            required: true,
            advice: Some(Reason::KeyPendingDeletion.entry().hint.into()),
            ..noted(
                "deletion",
                format!("scheduled {}", when.as_deref().unwrap_or("when its replicas are gone")),
            )
        },
        false => noted("deletion", "none that is told"),
    });
}

fn of_use(checks: &mut Vec<Check>, tenant: &Tenant, used: Used) {
    checks.push(match &used.wrapped {
        Ok(_) => passed("wrapping", "KMS wraps a data key"),
        Err(error) => failed("wrapping", error),
    });
    checks.push(match &used.comes_back {
        Ok(()) => passed("unwrapping", "what was wrapped comes back"),
        Err(error) => failed("unwrapping", error),
    });
    checks.push(match &used.other_context {
        Ok(OtherContext::RefusedByBinding) => passed(CONTEXT, "refused for another tenant's"),
        Ok(OtherContext::RefusedByPolicy) => {
            passed(CONTEXT, "refused for another tenant's, by the key's policy")
        }
        Ok(OtherContext::Accepted) => Check {
            status: Status::Failed,
            advice: Some(
                "KMS unwraps whatever the encryption context: look at what stands between this \
                 server and KMS, and do not use it until then."
                    .into(),
            ),
            ..passed(CONTEXT, "accepted for another tenant's")
        },
        Err(error) => failed(CONTEXT, error),
    });
    if let Err(error) = tenant.require_all_data_keys() {
        checks.push(failed("data_keys", &error));
    } else if tenant.data_keys.is_empty() {
        checks.push(passed("data_keys", "none yet"));
    }
    for (version, purpose, tried) in used.data_keys {
        let which = format!("version {version}, for {}", purpose.name());
        checks.push(match tried {
            Ok(()) => passed("data_key", format!("{which}: unwraps, and is the registered one")),
            Err(error) => {
                let failed = failed("data_key", &error);
                Check { seen: format!("{which}: {}", failed.seen), ..failed }
            }
        });
    }
}

/// What is lost without a permission that the owner may withhold.
const LOST: [(&str, &str); 2] = [
    (
        "kms:DescribeKey",
        "state, kind and origin of the key, and the warnings of a scheduled deletion and of expiring \
         key material",
    ),
    ("kms:GetKeyRotationStatus", "whether the key rotates, and the warning that it does not"),
];

fn of_permissions(
    checks: &mut Vec<Check>,
    facts: &Result<KeyFacts>,
    management: &Result<Management>,
) {
    let missing = facts.as_ref().map_or(&[][..], |facts| &facts.not_permitted);
    for (permission, what) in LOST.iter().filter(|(name, _)| missing.contains(name)) {
        checks.push(Check {
            status: Status::Warning,
            advice: Some(format!("Without it these are not seen: {what}.")),
            ..noted("permission", format!("{permission} is not allowed to us"))
        });
    }
    checks.push(match management {
        Ok(management) => least_privilege(management),
        Err(error) => {
            Check { status: Status::Warning, required: false, ..failed("least_privilege", error) }
        }
    });
}

fn least_privilege(found: &Management) -> Check {
    const NAME: &str = "least_privilege";
    let mut allowed: Vec<&str> = Vec::new();
    let mut unclear = None;
    if let Some(policy) = &found.policy {
        allowed.extend(&policy.allows);
        if policy.open_to_anybody {
            return Check {
                status: Status::Failed,
                advice: Some("The owner has to restrict that statement of the key policy.".into()),
                ..noted(NAME, "the key policy lets anybody at all use the key, without a condition")
            };
        }
        unclear = policy.left_to_account.as_deref();
    }
    if found.can_create_grants == Some(true) && !allowed.contains(&"kms:CreateGrant") {
        allowed.push("kms:CreateGrant");
    }
    match (allowed.is_empty(), unclear, &found.policy) {
        (false, ..) => Check {
            status: Status::Warning,
            advice: Some(
                "The owner should not allow us that: cmk.key_policy() has what we need.".into(),
            ),
            ..noted(NAME, format!("allowed to us: {}", allowed.join(", ")))
        },
        (true, Some(account), _) => noted(
            NAME,
            format!(
                "nothing by the key policy, which leaves the rest to identity policies of account \
                 {account}"
            ),
        ),
        (true, None, Some(_)) => {
            noted(NAME, "the key policy allows us nothing that manages the key")
        }
        (true, None, None) => noted(NAME, "not told, as the key policy is not shown to us"),
    }
}

fn noted(name: &'static str, seen: impl Into<String>) -> Check {
    Check { name, status: Status::Ok, required: false, seen: seen.into(), advice: None }
}

fn passed(name: &'static str, seen: impl Into<String>) -> Check {
    Check { required: true, ..noted(name, seen) }
}

fn failed(name: &'static str, error: &Error) -> Check {
    let info = error.info().map_or(String::new(), |info| format!(" {info}"));
    Check {
        status: Status::Failed,
        advice: Some(error.hint().into()),
        ..passed(name, format!("reason={}{info}", error.reason.name()))
    }
}
