//! The fields of an ARN: partition, Region, account (IAM User Guide, "IAM identifiers"; AWS General
//! Reference, "Amazon Resource Names").

/// The partitions beside the public one and how their Regions begin, as the SDK's own list has
/// them. None of the beginnings is the beginning of another.
const PARTITIONS: [(&str, &str); 7] = [
    ("aws-cn", "cn-"),
    ("aws-eusc", "eusc-"),
    ("aws-iso", "us-iso-"),
    ("aws-iso-b", "us-isob-"),
    ("aws-iso-e", "eu-isoe-"),
    ("aws-iso-f", "us-isof-"),
    ("aws-us-gov", "us-gov-"),
];

/// The public partition: whatever Region is in no other one, so that a new Region needs no new
/// release of ours.
const PUBLIC: &str = "aws";

/// A Region belongs to exactly one partition.
pub fn partition_of(region: &str) -> &'static str {
    let mut others = PARTITIONS.into_iter();
    others.find(|(_, prefix)| region.starts_with(prefix)).map_or(PUBLIC, |(name, _)| name)
}

/// Whether there is a partition of this name.
pub fn is_partition(name: &str) -> bool {
    name == PUBLIC || PARTITIONS.iter().any(|(other, _)| *other == name)
}

/// `us-east-1`, `us-gov-west-1`, `eusc-de-east-1`: two or three words of lower-case letters and a
/// number. A Region becomes part of a host name.
pub fn is_region(region: &str) -> bool {
    let parts: Vec<_> = region.split('-').collect();
    let Some((number, words)) = parts.split_last() else { return false };
    (2..=3).contains(&words.len())
        && words
            .iter()
            .all(|w| (2..=12).contains(&w.len()) && w.bytes().all(|b| b.is_ascii_lowercase()))
        && (1..=2).contains(&number.len())
        && number.bytes().all(|b| b.is_ascii_digit())
}

/// 12 digits.
pub fn is_account(account: &str) -> bool {
    account.len() == 12 && account.bytes().all(|b| b.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;
    use std::collections::BTreeSet;
    use std::process::Command;

    /// The list that the SDK resolves endpoints by, out of the source of aws-sdk-kms in use.
    fn partitions_of_sdk() -> Vec<Value> {
        let metadata = Command::new(env!("CARGO"))
            .args(["metadata", "--format-version", "1", "--locked"])
            .output()
            .unwrap();
        let metadata: Value = serde_json::from_slice(&metadata.stdout).unwrap();
        let packages = metadata["packages"].as_array().unwrap();
        let sdk = packages.iter().find(|package| package["name"] == "aws-sdk-kms").unwrap();
        let manifest = std::path::Path::new(sdk["manifest_path"].as_str().unwrap());
        let source = manifest.with_file_name("src").join("endpoint_lib.rs");
        let source = std::fs::read_to_string(source).unwrap();
        // Of a byte string of Rust, escaped as a string of JSON is.
        let (_, literal) = source.split_once(r#"new_from_json(b"{"#).unwrap();
        let (literal, _) = literal.split_once(r#"}")"#).unwrap();
        let document: String = serde_json::from_str(&format!(r#""{{{literal}}}""#)).unwrap();
        let mut document: Value = serde_json::from_str(&document).unwrap();
        serde_json::from_value(document["partitions"].take()).unwrap()
    }

    /// Regions that such a regular expression takes, one for each of its alternatives:
    /// `^(us|eu)\-\w+\-\d+$`.
    fn regions_of(regex: &str) -> Vec<String> {
        let regex = regex.strip_prefix('^').and_then(|rest| rest.strip_suffix('$')).unwrap();
        let regex = regex.replace(r"\-", "-").replace(r"\w+", "north").replace(r"\d+", "7");
        let regions = match regex.split_once('(') {
            None => vec![regex],
            Some((before, rest)) => {
                let (choices, after) = rest.split_once(')').unwrap();
                choices.split('|').map(|choice| format!("{before}{choice}{after}")).collect()
            }
        };
        assert!(regions.iter().all(|region| is_region(region)), "not understood: {regions:?}");
        regions
    }

    #[test]
    fn partitions_are_those_of_the_sdk() {
        let mut names = BTreeSet::new();
        for partition in partitions_of_sdk() {
            let name = partition["id"].as_str().unwrap();
            assert!(is_partition(name), "{name}");
            names.insert(name.to_owned());
            let mut regions = regions_of(partition["regionRegex"].as_str().unwrap());
            let listed = partition["regions"].as_object().unwrap().keys();
            // `aws-global` and the like are no Regions: no key lives there.
            regions.extend(listed.filter(|region| !region.ends_with("-global")).cloned());
            assert!(regions.len() >= 2, "{name}");
            for region in regions {
                assert!(is_region(&region), "{region}");
                assert_eq!(partition_of(&region), name, "{region}");
            }
        }
        let ours: BTreeSet<_> = PARTITIONS.iter().map(|(name, _)| *name).chain([PUBLIC]).collect();
        assert!(names.iter().eq(&ours), "{names:?}");
    }

    #[test]
    fn a_new_public_region_needs_no_release() {
        assert_eq!(partition_of("xx-north-1"), PUBLIC);
        assert!(!is_partition("aws-"));
    }
}
