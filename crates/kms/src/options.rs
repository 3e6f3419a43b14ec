//! The options of a key: what a provider has to know beyond its URI.

use cmk_error::{Error, Reason, Result, quoted};
use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, Visitor};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt;

/// Longest text of options accepted, in bytes.
const TEXT_MAX: usize = 8 * 1024;

/// Longest part of an option's name that an error repeats, in characters.
const NAME_MAX: usize = 64;

/// A JSON object (RFC 8259) of texts, read strictly: a provider takes the options that it knows,
/// and [`finish`](Options::finish) refuses what is left. A misspelt `external_id` must not pass for
/// none.
#[derive(Debug)]
pub struct Options(BTreeMap<String, String>);

impl Options {
    /// # Errors
    /// `key_options`: with `cause=size` for more than 8 KiB, `cause=json` for what is no JSON
    /// object or names an option twice, `option=NAME cause=type` for a value that is no string.
    pub fn parse(text: &str) -> Result<Self> {
        if text.len() > TEXT_MAX {
            return Err(refused("cause=size"));
        }
        let Members(members) = serde_json::from_str(text).map_err(|_| refused("cause=json"))?;
        let texts = members.into_iter().map(|(name, value)| match value {
            Value::String(value) => Ok((name, value)),
            _ => Err(refused(format!("{} cause=type", named(&name)))),
        });
        texts.collect::<Result<_>>().map(Self)
    }

    /// Sorted names and no white space: two objects that say the same are the same text.
    pub fn to_canonical_json(&self) -> String {
        serde_json::to_string(&self.0).expect("strings are always valid JSON")
    }

    /// The option of this name, which is then no longer there.
    pub fn take_text(&mut self, name: &str) -> Option<String> {
        self.0.remove(name)
    }

    /// To be called when all known options are taken.
    ///
    /// # Errors
    /// `key_options` with `option=NAME` for the first one left, in the order of their names.
    pub fn finish(self) -> Result<()> {
        match self.0.keys().next() {
            Some(name) => Err(refused(named(name))),
            None => Ok(()),
        }
    }
}

fn refused(info: impl Into<Box<str>>) -> Error {
    Error::new(Reason::KeyOptions).with_info(info)
}

/// `option=NAME`, such that it reads back as one field.
fn named(name: &str) -> String {
    let name: String = name.chars().take(NAME_MAX).collect();
    match name.is_empty() {
        true => r#"option="""#.to_owned(),
        false => format!("option={}", quoted(&name)),
    }
}

/// Of an object, each once: of two members with one name, readers disagree which one counts (RFC
/// 8259, section 4).
struct Members(BTreeMap<String, Value>);

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(MembersVisitor)
    }
}

struct MembersVisitor;

impl<'de> Visitor<'de> for MembersVisitor {
    type Value = Members;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
        let mut members = BTreeMap::new();
        while let Some((name, value)) = map.next_entry()? {
            if members.insert(name, value).is_some() {
                return Err(A::Error::custom("a name twice"));
            }
        }
        Ok(Members(members))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(text: &str) -> String {
        let error = Options::parse(text).and_then(Options::finish).unwrap_err();
        assert_eq!(error.reason, Reason::KeyOptions);
        error.info().unwrap_or_default().to_owned()
    }

    #[test]
    fn what_is_taken_is_not_left() {
        let mut options = Options::parse(r#" {"b": "2", "a": "\u0031"} "#).unwrap();
        assert_eq!(options.to_canonical_json(), r#"{"a":"1","b":"2"}"#);
        assert_eq!(options.take_text("a").as_deref(), Some("1"));
        assert_eq!(options.take_text("a"), None);
        assert_eq!(options.take_text("b").as_deref(), Some("2"));
        options.finish().unwrap();
    }

    #[test]
    fn no_options_are_an_empty_object() {
        let options = Options::parse("{}").unwrap();
        assert_eq!(options.to_canonical_json(), "{}");
        options.finish().unwrap();
    }

    #[test]
    fn what_is_left_is_refused_by_name() {
        assert_eq!(refusal(r#"{"externalid": "x"}"#), "option=externalid");
        assert_eq!(refusal(r#"{"b": "x", "a": "y"}"#), "option=a");
        assert_eq!(refusal(r#"{"": "x"}"#), r#"option="""#);
        assert_eq!(refusal(r#"{"a reason=x\n": "x"}"#), r#"option="a reason=x\n""#);
        let long = "é".repeat(100);
        let cut = format!("option={:?}", "é".repeat(64));
        assert_eq!(refusal(&format!(r#"{{"{long}": "x"}}"#)), cut);
    }

    #[test]
    fn values_are_strings() {
        for value in ["null", "1", "true", "[]", "{}", r#"["x"]"#] {
            assert_eq!(refusal(&format!(r#"{{"a": {value}}}"#)), "option=a cause=type");
        }
    }

    #[test]
    fn anything_but_one_object_is_refused() {
        let deep = "[".repeat(5000);
        let deep = format!(r#"{{"a": {deep}"#);
        for text in ["", " ", "null", "[]", r#""a""#, "{", "{} {}", r#"{"a": "1",}"#, &*deep] {
            assert_eq!(refusal(text), "cause=json", "{text}");
        }
        assert_eq!(refusal(r#"{"a": "1", "a": "1"}"#), "cause=json");
    }

    #[test]
    fn size_is_looked_at_first() {
        let of_size = |size: usize| format!("{{{}}}", " ".repeat(size - 2));
        assert!(Options::parse(&of_size(TEXT_MAX)).is_ok());
        assert_eq!(refusal(&of_size(TEXT_MAX + 1)), "cause=size");
    }
}
