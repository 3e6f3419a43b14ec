//! What our own account has to allow us: the IAM policy of the role that the server runs as.
//!
//! IAM takes 6,144 characters for a managed policy and 10,240 for all that is written into a role
//! (IAM User Guide, "IAM and AWS STS quotas"; white space doesn't count). A statement for each
//! tenant is exact and soon too long, so the policy says as much as fits into one managed policy.
//! What it can't say, the keys' own policies do: both sides have to allow a call.

use super::OwnedKey;
use super::key_policy::{Part, USE, WATCH};
use super::policy::{Condition, Policy, Statement, Texts};
use crate::aws::assumed_role::AssumedRole;
use crate::aws::key_arn::KeyArn;
use crate::context::Purpose;
use crate::onboarding::KeyUse;
use cmk_error::Result;
use std::collections::BTreeSet;

/// Most characters of a managed policy.
const SIZE_MAX: usize = 6_144;

/// What is said, the most first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Detail {
    /// Which tenant, with which key, for which purposes, by which external id.
    Tenants,
    /// Which keys and roles.
    Keys,
    /// Which accounts and Regions.
    Regions,
    /// Which accounts.
    Accounts,
    /// Which partitions.
    Partitions,
}

impl Detail {
    const ALL: [Self; 5] =
        [Self::Tenants, Self::Keys, Self::Regions, Self::Accounts, Self::Partitions];

    fn key(self, key: &KeyArn) -> String {
        let (partition, region, account) = (key.partition(), key.region(), key.account());
        match self {
            Self::Tenants | Self::Keys => key.as_str().to_owned(),
            Self::Regions => format!("arn:{partition}:kms:{region}:{account}:key/*"),
            Self::Accounts => format!("arn:{partition}:kms:*:{account}:key/*"),
            Self::Partitions => format!("arn:{partition}:kms:*:*:key/*"),
        }
    }

    fn role(self, role: &AssumedRole) -> String {
        let (arn, account) = (&role.arn, role.arn.account());
        let partition = arn.partition();
        match self {
            Self::Tenants | Self::Keys => arn.as_str().to_owned(),
            Self::Regions | Self::Accounts => format!("arn:{partition}:iam::{account}:role/*"),
            Self::Partitions => format!("arn:{partition}:iam::*:role/*"),
        }
    }
}

/// A key that we use as ourselves, or a role that we assume to use it.
struct Used<'a> {
    tenant: &'a str,
    purposes: &'a [Purpose],
    part: Part,
    owned: OwnedKey,
}

/// The policy for all these tenants, as exact as one managed policy can be.
///
/// # Errors
/// As parsing the keys.
pub fn service_policy(used: &[KeyUse<'_>]) -> Result<Policy> {
    let mut all = Vec::with_capacity(used.len());
    for KeyUse { tenant, key, next, purposes } in used {
        let part = if next.is_some() { Part::Former } else { Part::Only };
        for (key, part) in [(Some(*key), part), (*next, Part::Next)] {
            let Some(key) = key else { continue };
            all.push(Used { tenant, purposes, part, owned: OwnedKey::of(key)? });
        }
    }
    let mut policies = Detail::ALL.into_iter().map(|detail| policy(&all, detail));
    let fits = policies.find(|policy| policy.size() <= SIZE_MAX);
    Ok(fits.unwrap_or_else(|| policy(&all, Detail::Partitions)))
}

fn policy(all: &[Used<'_>], detail: Detail) -> Policy {
    let (direct, assumed): (Vec<_>, Vec<_>) = all.iter().partition(|it| it.owned.role.is_none());
    let mut statements = match detail {
        Detail::Tenants => of_each(&direct),
        _ => of_all(&direct, detail),
    };
    if !direct.is_empty() {
        statements.push(Statement::allow("CmkEncryptWatch", &WATCH).on(keys(&direct, detail)));
    }
    statements.extend(assume(&assumed, detail));
    Policy::new(statements)
}

/// The same as the key's policy, for each key.
fn of_each(direct: &[&Used<'_>]) -> Vec<Statement> {
    let mut statements = Vec::new();
    for (it, number) in direct.iter().zip(1..) {
        let condition = || Condition::of_context(Some(it.tenant), it.purposes);
        let mut allow = |name: &str, actions: &[&str]| {
            let statement = Statement::allow(&format!("{name}{number}"), actions);
            statements.push(statement.on(it.owned.arn.as_str()).when(condition()));
        };
        allow("CmkEncryptUse", &USE);
        if let Some(actions) = it.part.rewrap() {
            allow("CmkEncryptRewrap", actions);
        }
    }
    statements
}

/// One statement for all keys of a part. Whose context it is, each key's own policy says.
fn of_all(direct: &[&Used<'_>], detail: Detail) -> Vec<Statement> {
    let mut statements = Vec::new();
    let mut allow = |name: &str, actions: &[&str], of: &[&Used<'_>]| {
        let purposes = Purpose::ALL.into_iter();
        let purposes = purposes.filter(|purpose| of.iter().any(|it| it.purposes.contains(purpose)));
        let condition = Condition::of_context(None, &purposes.collect::<Vec<_>>());
        if !of.is_empty() {
            statements.push(Statement::allow(name, actions).on(keys(of, detail)).when(condition));
        }
    };
    allow("CmkEncryptUse", &USE, direct);
    for (part, name) in [(Part::Former, "CmkEncryptRewrapFrom"), (Part::Next, "CmkEncryptRewrapTo")]
    {
        let of: Vec<_> = direct.iter().copied().filter(|it| it.part == part).collect();
        allow(name, part.rewrap().unwrap_or_default(), &of);
    }
    statements
}

fn keys(direct: &[&Used<'_>], detail: Detail) -> Texts {
    let keys: BTreeSet<_> = direct.iter().map(|it| detail.key(&it.owned.arn)).collect();
    keys.into_iter().collect()
}

/// Roles of owners, each by its external id, or all of them by any.
fn assume(assumed: &[&Used<'_>], detail: Detail) -> Vec<Statement> {
    let roles: BTreeSet<_> = assumed
        .iter()
        .filter_map(|it| it.owned.role.as_ref())
        .map(|role| (detail.role(role), role.external_id.as_str()))
        .collect();
    let allow =
        |number: &str| Statement::allow(&format!("CmkEncryptAssume{number}"), &["sts:AssumeRole"]);
    if roles.is_empty() {
        return Vec::new();
    }
    if detail == Detail::Tenants {
        let each = roles.into_iter().zip(1..).map(|((role, external_id), number)| {
            let condition = Condition::default().and("sts:ExternalId", external_id);
            allow(&number.to_string()).on(&*role).when(condition)
        });
        return each.collect();
    }
    let roles: BTreeSet<_> = roles.into_iter().map(|(role, _)| role).collect();
    let condition = Condition::default().and_some("sts:ExternalId");
    vec![allow("").on(roles.into_iter().collect::<Texts>()).when(condition)]
}

#[cfg(test)]
mod tests;
