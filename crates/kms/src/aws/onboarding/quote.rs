//! How the languages of our documents quote text that may be anything: names of tenants end up in
//! scripts that their administrators run.
//!
//! Every document but the guide is printable ASCII. So no line break, no white space and no
//! direction of writing of Unicode makes it look, to people or to programs, other than it is. And
//! AWS takes no policy with characters beyond U+00FF (AWS KMS API Reference, PutKeyPolicy,
//! `Policy`).

use serde::Serialize;
use serde_json::ser::{CharEscape, Formatter, PrettyFormatter, Serializer};
use std::io::{self, Write};

/// JSON (RFC 8259), indented by two, whose texts hold letters, digits, blanks and a few signs of
/// ASCII, and `\u` for everything else. Outside of them there are only `{}[]:,"` and white space.
/// So it means itself in a shell's single quotes, in a heredoc of Terraform's, and in a literal
/// block of YAML.
pub fn plain_json(value: &impl Serialize) -> String {
    let mut text = Vec::new();
    let mut serializer =
        Serializer::with_formatter(&mut text, Plain(PrettyFormatter::with_indent(b"  ")));
    value.serialize(&mut serializer).expect("written into memory");
    String::from_utf8(text).expect("ASCII")
}

/// What stands in a text of [`plain_json`] as itself.
fn is_plain(c: char) -> bool {
    c.is_ascii_alphanumeric() || " -_.:,/@+=*".contains(c)
}

struct Plain(PrettyFormatter<'static>);

impl Formatter for Plain {
    fn write_string_fragment<W: ?Sized + Write>(
        &mut self,
        writer: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        for c in fragment.chars() {
            match is_plain(c) {
                true => write!(writer, "{c}")?,
                false => write_units(writer, c)?,
            }
        }
        Ok(())
    }

    fn write_char_escape<W: ?Sized + Write>(
        &mut self,
        writer: &mut W,
        escape: CharEscape,
    ) -> io::Result<()> {
        let c = match escape {
            CharEscape::Quote => '"',
            CharEscape::ReverseSolidus => '\\',
            CharEscape::Solidus => '/',
            CharEscape::Backspace => '\u{8}',
            CharEscape::FormFeed => '\u{c}',
            CharEscape::LineFeed => '\n',
            CharEscape::CarriageReturn => '\r',
            CharEscape::Tab => '\t',
            CharEscape::AsciiControl(byte) => char::from(byte),
        };
        write_units(writer, c)
    }

    fn begin_array<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.begin_array(writer)
    }

    fn end_array<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.end_array(writer)
    }

    fn begin_array_value<W: ?Sized + Write>(
        &mut self,
        writer: &mut W,
        first: bool,
    ) -> io::Result<()> {
        self.0.begin_array_value(writer, first)
    }

    fn end_array_value<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.end_array_value(writer)
    }

    fn begin_object<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.begin_object(writer)
    }

    fn end_object<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.end_object(writer)
    }

    fn begin_object_key<W: ?Sized + Write>(
        &mut self,
        writer: &mut W,
        first: bool,
    ) -> io::Result<()> {
        self.0.begin_object_key(writer, first)
    }

    fn begin_object_value<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.begin_object_value(writer)
    }

    fn end_object_value<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.end_object_value(writer)
    }
}

/// In UTF-16, two units for what is beyond the basic plane.
fn write_units<W: ?Sized + Write>(writer: &mut W, c: char) -> io::Result<()> {
    c.encode_utf16(&mut [0; 2]).iter().try_for_each(|unit| write!(writer, "\\u{unit:04x}"))
}

/// A word of a POSIX shell: between single quotes nothing is special but the single quote itself.
pub fn shell(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// A quoted template of Terraform's language, without templates: `${` and `%{` would begin one, and
/// so might, after another dollar, `$${`, which is how they are written as text. As numbers, no
/// dollar and no percent sign is looked at.
pub fn hcl(text: &str) -> String {
    quoted(text, |c| c == '$' || c == '%')
}

/// A double-quoted scalar of YAML 1.1 and 1.2.
pub fn yaml(text: &str) -> String {
    quoted(text, |_| false)
}

/// Between double quotes, with C's escapes, as far as both languages have them: what isn't
/// printable ASCII, or is `special`, as `\U` and eight digits.
fn quoted(text: &str, special: impl Fn(char) -> bool) -> String {
    let mut quoted = String::from('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            ' '..='~' if !special(c) => quoted.push(c),
            _ => quoted.push_str(&format!("\\U{:08x}", u32::from(c))),
        }
    }
    quoted + "\""
}

/// A code span of CommonMark, fenced by more backticks than there are in a row inside. Letters of
/// all languages stand as they are; what can't be seen, or turns text around, as its number.
pub fn code_span(text: &str) -> String {
    let shown: String = text
        .chars()
        .map(|c| match c.is_alphanumeric() || (' '..='~').contains(&c) {
            true => c.to_string(),
            false => format!("\\u{{{:x}}}", u32::from(c)),
        })
        .collect();
    let longest = shown.split(|c| c != '`').map(str::len).max().unwrap_or_default();
    let fence = "`".repeat(longest + 1);
    // One blank on either side belongs to the fence.
    format!("{fence} {shown} {fence}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    const NASTY: &str =
        "a'b\"c\\d`e$(id)${x}%{y}\n\t\0é\u{202e}\u{2028}\u{85}😀#{z}<b>&|*_~[l](u){{v}}{% w %}";

    #[test]
    fn plain_json_is_plain_and_the_same_json() {
        let value = json!({ NASTY: [NASTY, {"b": 1}], "empty": [] });
        let text = plain_json(&value);
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), value);
        for c in text.chars() {
            assert!(is_plain(c) || "{}[]\"\\\n".contains(c), "{c:?}");
        }
        assert_eq!(text.matches('\\').count(), text.matches("\\u").count());
    }

    #[test]
    fn json_is_indented_as_people_expect() {
        let value = json!({"a": ["b", "c"], "d": {}});
        assert_eq!(plain_json(&value), serde_json::to_string_pretty(&value).unwrap());
    }

    #[test]
    fn a_shell_reads_the_text_back() {
        let nasty = NASTY.replace('\0', "");
        for text in [&*nasty, "", "'", "''", "-n"] {
            let script = format!("printf %s {}", shell(text));
            let output = std::process::Command::new("sh").args(["-c", &script]).output().unwrap();
            assert_eq!(String::from_utf8(output.stdout).unwrap(), text);
        }
    }

    #[test]
    fn quoted_scalars_are_ascii() {
        assert_eq!(
            hcl("$${a} %{b} é\""),
            r#""\U00000024\U00000024{a} \U00000025{b} \U000000e9\"""#
        );
        assert_eq!(yaml("${a}\u{2028}\\"), r#""${a}\U00002028\\""#);
        for text in [hcl(NASTY), yaml(NASTY)] {
            assert!(text.bytes().all(|b| (b' '..=b'~').contains(&b)), "{text}");
        }
    }

    #[test]
    fn a_code_span_ends_where_it_should() {
        assert_eq!(code_span("globex"), "` globex `");
        assert_eq!(code_span("a`b"), "`` a`b ``");
        assert_eq!(code_span("```"), "```` ``` ````");
        assert_eq!(code_span("é\u{202e}\n"), "` é\\u{202e}\\u{a} `");
    }
}
