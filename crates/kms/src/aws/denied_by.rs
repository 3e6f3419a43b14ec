//! Which policy denied access, as far as AWS says.
//!
//! The state of the key is the same whichever it was: we may not use it. But who can change it is
//! another party: the key's owner for the policy of the key, we for our own policies (IAM User
//! Guide, "Troubleshooting access denied error messages").

/// The policies, by what the messages call them, most particular first.
const POLICIES: &[(&str, &str)] = &[
    ("service control policy", "service_control_policy"),
    ("resource control policy", "resource_control_policy"),
    ("endpoint policy", "endpoint_policy"),
    ("permissions boundary", "permissions_boundary"),
    ("session policy", "session_policy"),
    ("identity-based policy", "identity_policy"),
    ("resource-based polic", "key_policy"),
];

/// The name of the policy, if the message names one.
pub fn denied_by(message: &str) -> Option<&'static str> {
    // What comes before are names of users and keys, which others choose.
    let because = ["because no ", "because the ", "with an explicit deny "];
    let at = because.iter().filter_map(|words| message.rfind(words)).max()?;
    let said = &message[at..];
    POLICIES.iter().find(|(called, _)| said.contains(called)).map(|(_, name)| *name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_policy_that_denied_is_told_if_aws_names_it() {
        let who = "User: arn:aws:sts::111122223333:assumed-role/session policy/x is not \
                   authorized to perform: kms:Decrypt on resource: \
                   arn:aws:kms:eu-central-1:444455556666:key/x";
        for (why, name) in [
            ("because no identity-based policy allows the kms:Decrypt action", "identity_policy"),
            ("because no resource-based policy allows the kms:Decrypt action", "key_policy"),
            ("with an explicit deny in a resource-based policy", "key_policy"),
            ("because no VPC endpoint policy allows the kms:Decrypt action", "endpoint_policy"),
            ("with an explicit deny in a service control policy", "service_control_policy"),
            ("with an explicit deny in a resource control policy", "resource_control_policy"),
            ("because no session policy allows the kms:Decrypt action", "session_policy"),
            ("because no permissions boundary allows it", "permissions_boundary"),
        ] {
            assert_eq!(denied_by(&format!("{who} {why}")), Some(name));
        }
        let unknown = "on the resource associated with this ciphertext because the resource does \
                       not exist in this Region, no resource-based policies allow access, or a \
                       resource-based policy explicitly denies access";
        assert_eq!(denied_by(unknown), Some("key_policy"));
        assert_eq!(denied_by(who), None);
        assert_eq!(denied_by(""), None);
    }
}
