//! What a tenant's AWS account and ours have to allow each other.
//!
//! | file | holds |
//! |---|---|
//! | [`principal`] | as whom policies name us |
//! | [`policy`] | policy documents and their statements |
//! | [`key_policy`] | what the owner of a key allows us |
//! | [`service_policy`] | what our own account has to allow us, within IAM's limits of size |
//! | [`document`] | guide, script, Terraform, CloudFormation, out of the templates beside it |
//! | [`quote`] | how each of these languages quotes text |
//!
//! Across accounts AWS asks both sides: the key's policy, and the policy of whoever calls (AWS KMS
//! Developer Guide, "Allowing users in other accounts to use a KMS key").

mod document;
mod key_policy;
mod policy;
mod principal;
mod quote;
mod service_policy;

use super::assumed_role::AssumedRole;
use super::key_arn::KeyArn;
use super::provider::{Aws, parse};
use crate::customer_key::CustomerKey;
use crate::key_facts::Identity;
use crate::onboarding::{Bounds, KeyUse, Onboarding, ServicePrincipal};
use crate::options::Options;
use crate::settings::Settings;
use cmk_error::{Error, Reason, Result};
use principal::{Principal, unknown};
use serde_json::Value;

impl Onboarding for Aws {
    fn named_principal(&self, settings: &Settings) -> Result<Option<ServicePrincipal>> {
        let Some(arn) = &settings.aws.service_principal else { return Ok(None) };
        Principal::parse(arn)?;
        Ok(Some(ServicePrincipal { name: arn.as_str().into(), is_guess: false }))
    }

    /// STS leaves the path out of the name of a role whose session it is asked by.
    fn principal_of(&self, identity: Option<Identity>) -> Result<ServicePrincipal> {
        let Identity { principal, session, .. } = identity.ok_or_else(|| unknown("caller"))?;
        // Not an account's root user, nor a federated user.
        Principal::parse(&principal).map_err(|_| unknown("caller"))?;
        Ok(ServicePrincipal { is_guess: principal != session, name: principal })
    }

    fn key_policy(&self, used: &KeyUse<'_>, principal: &ServicePrincipal) -> Result<Value> {
        let principal = Principal::parse(&principal.name)?;
        Ok(key_policy::Allowed::new(used, &principal)?.to_json())
    }

    fn service_policy(&self, used: &[KeyUse<'_>]) -> Result<Value> {
        service_policy::service_policy(used).map(|policy| policy.to_json())
    }

    fn document(
        &self,
        used: &KeyUse<'_>,
        principal: &ServicePrincipal,
        bounds: &Bounds,
        format: &str,
    ) -> Result<String> {
        document::write(used, principal, bounds, format)
    }
}

/// A key, and the role of its owner's as which it is used.
struct OwnedKey {
    arn: KeyArn,
    role: Option<AssumedRole>,
}

impl OwnedKey {
    /// # Errors
    /// `key_uri` for a key of another provider; `key_options` and the like.
    fn of(key: &CustomerKey) -> Result<Self> {
        let options = Options::parse(key.options())?;
        let (arn, role) = parse(key.uri(), options, 0)?;
        Ok(Self { arn, role })
    }

    /// # Errors
    /// `service_principal`: IAM's partitions know nothing of each other.
    fn require_partition_of(&self, principal: &Principal) -> Result<()> {
        match self.arn.partition() == principal.partition() {
            true => Ok(()),
            false => Err(Error::new(Reason::ServicePrincipal).with_info("cause=partition")),
        }
    }
}
