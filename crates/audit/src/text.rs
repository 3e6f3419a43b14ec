//! Text that comes from a client, which may say anything.

/// Longest text kept of what a client says of itself, in bytes.
pub const LONGEST: usize = 128;

/// The text without control characters, no longer than [`LONGEST`].
pub fn clean(text: &str) -> String {
    let mut clean = String::new();
    for c in text.chars().filter(|c| !c.is_control() && !is_line_or_direction(*c)) {
        if clean.len() + c.len_utf8() > LONGEST {
            break;
        }
        clean.push(c);
    }
    clean
}

/// Line and paragraph separators, and what turns the direction of the text around it: an editor
/// would show another line than there is.
fn is_line_or_direction(c: char) -> bool {
    matches!(c, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{200e}' | '\u{200f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_pass_for_another_line_goes() {
        assert_eq!(clean("a\nb\0c\u{7f}\u{85}\u{2028}\u{202e}d"), "abcd");
        assert_eq!(clean("ünï 'x' \"y\""), "ünï 'x' \"y\"");
    }

    #[test]
    fn it_is_cut_between_characters() {
        assert_eq!(clean(&"é".repeat(100)), "é".repeat(64));
        assert_eq!(clean(&format!("a{}", "é".repeat(100))).len(), 127);
    }
}
