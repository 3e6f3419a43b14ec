//! The ARN of a KMS key, parsed strictly.
//!
//! A Region out of a key ARN becomes part of a host name, so nothing but known shapes gets through.
//! Aliases are refused: their owner, or anyone who may update them, can point them at another key.

use super::arn::{is_account, is_region, partition_of};

/// `arn:PARTITION:kms:REGION:ACCOUNT:key/ID` (AWS KMS Developer Guide, "Key identifiers").
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyArn {
    arn: Box<str>,
    partition: &'static str,
    region: Box<str>,
    account: Box<str>,
    id: Box<str>,
}

impl KeyArn {
    /// `None` for anything else.
    pub fn parse(arn: &str) -> Option<Self> {
        let mut fields = arn.split(':');
        let mut next = || fields.next();
        let ("arn", partition, "kms", region, account, resource, None) =
            (next()?, next()?, next()?, next()?, next()?, next()?, next())
        else {
            return None;
        };
        let id = resource.strip_prefix("key/")?;
        let valid = is_region(region)
            && partition == partition_of(region)
            && is_account(account)
            && (is_uuid(id) || is_multi_region_id(id));
        valid.then(|| Self {
            arn: arn.into(),
            partition: partition_of(region),
            region: region.into(),
            account: account.into(),
            id: id.into(),
        })
    }

    /// As it was given.
    pub fn as_str(&self) -> &str {
        &self.arn
    }

    /// Whether both are multi-Region keys with the same material: same id, account and partition,
    /// whatever the Region.
    pub fn is_replica_of(&self, other: &Self) -> bool {
        let rest = |key: &Self| {
            let (partition, rest) = key.arn.split_once(":kms:")?;
            let (_region, rest) = rest.split_once(':')?;
            let (_account, id) = rest.split_once(":key/")?;
            is_multi_region_id(id).then(|| (partition.to_owned(), rest.to_owned()))
        };
        rest(self).is_some_and(|this| rest(other) == Some(this))
    }

    /// Of the key, and so of the endpoint.
    pub fn region(&self) -> &str {
        &self.region
    }

    /// The one that its Region is in.
    pub fn partition(&self) -> &'static str {
        self.partition
    }

    /// Whose key it is: 12 digits.
    pub fn account(&self) -> &str {
        &self.account
    }

    /// What follows `key/`.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Whether it may have replicas in other Regions.
    pub fn is_multi_region(&self) -> bool {
        is_multi_region_id(&self.id)
    }

    /// Whether it stands for a key that its owner has yet to make, and of which only account and
    /// Region are known: `00000000-0000-0000-0000-000000000000`, which no key has.
    pub fn is_placeholder(&self) -> bool {
        self.id.bytes().all(|b| matches!(b, b'0' | b'-'))
    }
}

fn is_lower_hex(text: &str) -> bool {
    text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

fn is_uuid(id: &str) -> bool {
    let lengths = id.split('-').map(str::len);
    lengths.eq([8, 4, 4, 4, 12]) && id.split('-').all(is_lower_hex)
}

/// AWS KMS Developer Guide, "Multi-Region keys".
fn is_multi_region_id(id: &str) -> bool {
    id.strip_prefix("mrk-").is_some_and(|hex| hex.len() == 32 && is_lower_hex(hex))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "1234abcd-12ab-34cd-56ef-1234567890ab";

    #[test]
    fn accepts_key_arns_of_every_partition() {
        for (partition, region) in [
            ("aws", "us-east-1"),
            ("aws-cn", "cn-north-1"),
            ("aws-eusc", "eusc-de-east-1"),
            ("aws-iso", "us-iso-east-1"),
            ("aws-iso-b", "us-isob-east-1"),
            ("aws-iso-e", "eu-isoe-west-1"),
            ("aws-iso-f", "us-isof-south-1"),
            ("aws-us-gov", "us-gov-west-1"),
        ] {
            let uri = format!("arn:{partition}:kms:{region}:111122223333:key/{ID}");
            let arn = KeyArn::parse(&uri).unwrap();
            assert_eq!((arn.as_str(), arn.region()), (&*uri, region));
        }
        let mrk = "arn:aws:kms:eu-west-1:111122223333:key/mrk-1234abcd12ab34cd56ef1234567890ab";
        assert!(KeyArn::parse(mrk).is_some());
    }

    #[test]
    fn refuses_everything_else() {
        for uri in [
            "".into(),
            "arn:aws:kms:us-east-1:111122223333:alias/acme".into(),
            format!("arn:aws:kms:us-east-1:111122223333:key/{ID}\n"),
            format!("arn:aws:kms:evil.example/us-east-1:111122223333:key/{ID}"),
            format!("arn:aws:kms:us-east-1.evil:111122223333:key/{ID}"),
            format!("arn:aws:kms:us-east-1#:111122223333:key/{ID}"),
            format!("arn:aws:kms:US-EAST-1:111122223333:key/{ID}"),
            format!("arn:aws:kms::111122223333:key/{ID}"),
            format!("arn:aws:kms:aws-global:111122223333:key/{ID}"),
            format!("arn:aws-cn:kms:us-east-1:111122223333:key/{ID}"),
            format!("arn:aws:kms:eu-isoe-west-1:111122223333:key/{ID}"),
            format!("arn:aws-iso-e:kms:eu-west-1:111122223333:key/{ID}"),
            format!("arn:aws:kms:us-east-1:11112222333:key/{ID}"),
            format!("arn:aws:kms:us-east-1:111122223333:key/{ID}:x"),
            format!("arn:aws:s3:us-east-1:111122223333:key/{ID}"),
            format!("arn:aws:kms:us-east-1:111122223333:key/{}", ID.to_uppercase()),
            ID.into(),
        ] {
            assert_eq!(KeyArn::parse(&uri), None, "{uri:?}");
        }
    }
}
