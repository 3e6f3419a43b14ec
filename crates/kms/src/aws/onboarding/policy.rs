//! Policy documents, as IAM and KMS take them (IAM User Guide, "IAM JSON policy elements
//! reference").

use super::quote::plain_json;
use crate::context::{EncryptionContext, Purpose};
use serde::Serialize;
use serde_json::Value;
use std::collections::BTreeMap;

/// A policy. Fields are declared in the order in which people read them.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Policy {
    version: &'static str,
    /// All of them allow something.
    pub statement: Vec<Statement>,
}

/// What somebody may do, with what, under which condition.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Statement {
    /// Letters and digits.
    pub sid: String,
    effect: &'static str,
    /// Who. In the policies of roles it is the role.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub principal: Option<Aws>,
    /// What.
    pub action: Texts,
    /// With what. In trust policies it is the role.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resource: Option<Texts>,
    /// When.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub condition: Option<Condition>,
}

/// A principal of IAM.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub struct Aws {
    aws: String,
}

/// One text or several, of which one has to match.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Texts {
    /// Alone.
    One(String),
    /// Several.
    Many(Vec<String>),
}

/// All of it has to hold.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Condition {
    #[serde(rename = "StringEquals", skip_serializing_if = "BTreeMap::is_empty")]
    equal: BTreeMap<String, Texts>,
    #[serde(rename = "StringLike", skip_serializing_if = "BTreeMap::is_empty")]
    like: BTreeMap<String, String>,
    #[serde(rename = "ForAllValues:StringEquals", skip_serializing_if = "BTreeMap::is_empty")]
    all_of: BTreeMap<String, Texts>,
    #[serde(rename = "Null", skip_serializing_if = "BTreeMap::is_empty")]
    missing: BTreeMap<String, &'static str>,
}

impl Policy {
    /// Of these statements.
    pub fn new(statement: Vec<Statement>) -> Self {
        Self { version: "2012-10-17", statement }
    }

    /// As SQL returns it.
    pub fn to_json(&self) -> Value {
        serde_json::to_value(self).expect("texts are always valid JSON")
    }

    /// As people paste it: see [`plain_json`].
    pub fn to_text(&self) -> String {
        plain_json(self)
    }

    /// As IAM counts it: without white space (IAM User Guide, "IAM and AWS STS quotas").
    pub fn size(&self) -> usize {
        let text = plain_json(self);
        text.bytes().filter(|b| !b.is_ascii_whitespace()).count()
    }
}

impl Statement {
    /// Allows these actions, to nobody and with nothing yet.
    pub fn allow(sid: &str, actions: &[&str]) -> Self {
        Self {
            sid: sid.to_owned(),
            effect: "Allow",
            principal: None,
            action: actions.iter().copied().collect(),
            resource: None,
            condition: None,
        }
    }

    /// To this principal.
    #[must_use]
    pub fn to(mut self, arn: &str) -> Self {
        self.principal = Some(Aws { aws: arn.to_owned() });
        self
    }

    /// With this.
    #[must_use]
    pub fn on(mut self, resource: impl Into<Texts>) -> Self {
        self.resource = Some(resource.into());
        self
    }

    /// Under this condition.
    #[must_use]
    pub fn when(mut self, condition: Condition) -> Self {
        self.condition = Some(condition);
        self
    }
}

impl Condition {
    /// This key has one of these values, exactly.
    #[must_use]
    pub fn and(mut self, key: &str, values: impl Into<Texts>) -> Self {
        self.equal.insert(key.to_owned(), values.into());
        self
    }

    /// This key has a value, whatever it is.
    #[must_use]
    pub fn and_some(mut self, key: &str) -> Self {
        self.missing.insert(key.to_owned(), "false");
        self
    }

    /// The encryption contexts of a tenant's data keys for these purposes, with nothing missing and
    /// nothing beside it; of every tenant's if none is given.
    pub fn of_context(tenant: Option<&str>, purposes: &[Purpose]) -> Self {
        let mut values: BTreeMap<&'static str, Vec<String>> = BTreeMap::new();
        for purpose in purposes {
            for (key, value) in EncryptionContext::new(tenant.unwrap_or_default(), *purpose).pairs()
            {
                let values = values.entry(key).or_default();
                if !values.iter().any(|known| known == value) {
                    values.push(value.to_owned());
                }
            }
        }
        let all_of = [("kms:EncryptionContextKeys".to_owned(), values.keys().copied().collect())];
        let mut condition = Self { all_of: all_of.into(), ..Self::default() };
        values.remove("tenant");
        for (key, values) in values {
            let values: Texts = values.into_iter().collect();
            condition = condition.and(&format!("kms:EncryptionContext:{key}"), values);
        }
        match tenant {
            Some(tenant) => condition.and_is("kms:EncryptionContext:tenant", tenant),
            None => condition,
        }
    }

    /// This key has this value, whatever is in it. `${` would begin a policy variable, which AWS
    /// replaces: with `${aws:username}` for a name, a tenant would be whoever calls. `${$}` stands
    /// for a dollar (IAM User Guide, "IAM policy elements: Variables and tags"), undoubtedly so
    /// where `*` and `?` have to be written like that, too.
    fn and_is(mut self, key: &str, value: &str) -> Self {
        if !value.contains("${") {
            return self.and(key, value);
        }
        let pattern = value.chars().map(|c| match c {
            '$' | '*' | '?' => format!("${{{c}}}"),
            _ => c.to_string(),
        });
        self.like.insert(key.to_owned(), pattern.collect());
        self
    }
}

impl From<&str> for Texts {
    fn from(text: &str) -> Self {
        Self::One(text.to_owned())
    }
}

impl FromIterator<String> for Texts {
    fn from_iter<T: IntoIterator<Item = String>>(texts: T) -> Self {
        let mut texts: Vec<_> = texts.into_iter().collect();
        match texts.len() {
            1 => Self::One(texts.remove(0)),
            _ => Self::Many(texts),
        }
    }
}

impl<'a> FromIterator<&'a str> for Texts {
    fn from_iter<T: IntoIterator<Item = &'a str>>(texts: T) -> Self {
        texts.into_iter().map(str::to_owned).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_context_is_required_as_a_whole() {
        let both = Condition::of_context(Some("globex"), &Purpose::ALL);
        assert_eq!(
            serde_json::to_value(both).unwrap(),
            json!({
                "StringEquals": {
                    "kms:EncryptionContext:cmk_encrypt": "v1",
                    "kms:EncryptionContext:purpose": ["values", "index"],
                    "kms:EncryptionContext:tenant": "globex",
                },
                "ForAllValues:StringEquals": {
                    "kms:EncryptionContextKeys": ["cmk_encrypt", "purpose", "tenant"],
                },
            })
        );
        let any = Condition::of_context(None, &[Purpose::Values]);
        let any = serde_json::to_value(any).unwrap();
        assert_eq!(any["StringEquals"].as_object().unwrap().len(), 2);
        assert_eq!(any["StringEquals"]["kms:EncryptionContext:purpose"], "values");
    }

    #[test]
    fn no_name_is_a_policy_variable() {
        const KEY: &str = "kms:EncryptionContext:tenant";
        for (name, operator, written) in [
            ("$5", "StringEquals", "$5"),
            ("*?", "StringEquals", "*?"),
            ("a${aws:username}", "StringLike", "a${$}{aws:username}"),
            ("$${*}?", "StringLike", "${$}${$}{${*}}${?}"),
            ("${$}", "StringLike", "${$}{${$}}"),
        ] {
            let condition = Condition::of_context(Some(name), &[Purpose::Values]);
            let condition = serde_json::to_value(condition).unwrap();
            assert_eq!(condition[operator][KEY], written);
            let others = ["StringEquals", "StringLike"].into_iter().filter(|it| *it != operator);
            assert!(others.into_iter().all(|other| condition[other].get(KEY).is_none()));
        }
    }

    #[test]
    fn people_read_statements_in_their_order() {
        let statement = Statement::allow("Sid1", &["kms:Decrypt"]).to("arn").on("*");
        let text = Policy::new(vec![statement]).to_text();
        let places: Vec<_> = ["Version", "Sid", "Effect", "Principal", "Action", "Resource"]
            .into_iter()
            .map(|key| text.find(key).unwrap())
            .collect();
        assert!(places.is_sorted(), "{text}");
    }
}
