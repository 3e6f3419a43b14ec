use super::*;
use crate::MAGIC;
use crate::column::{SUITE_2, SUITE_3, SUITE_4, SUITE_PROBE};

/// A well-formed envelope; armor asks for no more.
fn envelope(suite: u8, plaintext_len: usize) -> Vec<u8> {
    let overhead = match suite & 0x0F {
        SUITE_3 => 94,
        SUITE_4 => 114,
        _ => 74,
    };
    let len = plaintext_len + overhead;
    let mut bytes: Vec<u8> = (0..len).map(|i| (i * 37 + len) as u8).collect();
    bytes[..2].copy_from_slice(&[MAGIC, suite]);
    bytes
}

fn armor(envelope: &[u8]) -> Vec<u8> {
    encode(envelope).unwrap()
}

#[track_caller]
fn assert_refused(text: &[u8], why: &str) {
    assert_eq!(decode(text).unwrap(), None, "{why}");
}

#[test]
fn decodes_what_it_encoded() {
    for suite in [SUITE_2, SUITE_3, SUITE_4, 0x93, 0x34] {
        for plaintext_len in 0..70 {
            let envelope = envelope(suite, plaintext_len);
            let text = armor(&envelope);
            assert_eq!(text.len(), encoded_len(envelope.len()));
            assert_eq!(decoded_len(text.len()), Some(envelope.len()));
            assert_eq!(decode(&text).unwrap(), Some(envelope));
        }
    }
}

#[test]
fn it_is_base64_of_the_envelope_and_the_start_of_a_hash() {
    let envelope = envelope(SUITE_2, 9);
    let text = armor(&envelope);
    let bytes = BASE64_NOPAD.decode(text.strip_prefix(b"cmk1:").unwrap()).unwrap();
    let hash = Sha256::digest([b"cmk_encrypt/v1/armor", envelope.as_slice()].concat());
    assert_eq!(bytes, [&envelope, &hash[..4]].concat());
}

#[test]
fn every_changed_character_is_refused() {
    for (suite, plaintext_len) in [(SUITE_2, 0), (SUITE_3, 1), (SUITE_4, 2)] {
        let text = armor(&envelope(suite, plaintext_len));
        for at in 0..text.len() {
            for other in 0..=u8::MAX {
                let mut bad = text.clone();
                bad[at] = other;
                if bad != text {
                    assert_refused(&bad, &format!("{other:#x} at {at}"));
                }
            }
        }
    }
}

#[test]
fn every_truncation_and_extension_is_refused() {
    for (suite, plaintext_len) in [(SUITE_2, 2), (SUITE_3, 0), (SUITE_4, 1)] {
        let text = armor(&envelope(suite, plaintext_len));
        for len in 0..text.len() {
            assert_refused(&text[..len], &format!("{len} characters"));
        }
        for end in ["=", "==", "A", "AA", "AAAA", "\n", "\r\n", " ", "\0"] {
            assert_refused(&[text.as_slice(), end.as_bytes()].concat(), end);
        }
    }
}

#[test]
fn spaces_other_alphabets_and_other_prefixes_are_refused() {
    let text = armor(&envelope(SUITE_2, 400));
    let (start, end) = text.split_at(81);
    assert_refused(&[start, b"\n", end].concat(), "wrapped lines");
    assert_refused(&[b" ", text.as_slice()].concat(), "a space before it");
    let url: Vec<u8> = text
        .iter()
        .map(|c| match c {
            b'+' => b'-',
            b'/' => b'_',
            c => *c,
        })
        .collect();
    assert_ne!(url, text, "nothing would be tested");
    assert_refused(&url, "base64url");
    for prefix in ["", "cmk0:", "cmk2:", "CMK1:", "cmk1", "cmk1:cmk1:", "cmk0:cmk1:"] {
        assert_refused(&[prefix.as_bytes(), &text[5..]].concat(), prefix);
    }
    for text in ["cmk1:", "cmk1:AAAAAA", "cmk1: a note that somebody wrote", "cmk1:é"] {
        assert_refused(text.as_bytes(), text);
    }
}

#[test]
fn a_text_has_one_meaning_only() {
    // 78 bytes with the checksum are whole groups; the others leave 2 or 4 bits over.
    for (plaintext_len, spare_bits) in [(0, 0), (1, 4), (2, 2)] {
        let text = armor(&envelope(SUITE_2, plaintext_len));
        let (last, rest) = text.split_last().unwrap();
        let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        let value = alphabet.iter().position(|c| c == last).unwrap();
        for spare in 1..1 << spare_bits {
            assert_refused(&[rest, &[alphabet[value | spare]]].concat(), "trailing bits");
        }
        assert_eq!(value & ((1 << spare_bits) - 1), 0);
    }
}

#[test]
fn only_envelopes_of_columns_are_armor() {
    let [mut cut_3, mut cut_4] = [SUITE_3, SUITE_4].map(|suite| envelope(suite, 0));
    cut_3.pop();
    cut_4.pop();
    for (bytes, why) in [
        (envelope(crate::SUITE_1, 100), "suite 1"),
        (envelope(SUITE_PROBE, 100), "a long probe"),
        ([&[MAGIC, SUITE_PROBE][..], &[0; 28]].concat(), "a probe"),
        (cut_3, "a byte less than the shortest of suite 3"),
        (cut_4, "a byte less than the shortest of suite 4"),
        (envelope(0x43, 100), "suite 3 with a rule that there isn't"),
        (envelope(0x12, 100), "suite 2 with a rule"),
        (
            b"plain text, as long as the shortest of all the envelopes that a column may store"
                .to_vec(),
            "plain text",
        ),
        (Vec::new(), "nothing"),
    ] {
        assert_refused(&armor(&bytes), why);
    }
}

#[test]
fn room_of_another_length_is_refused() {
    let envelope = envelope(SUITE_2, 5);
    let text = armor(&envelope);
    for room in [0, 4, text.len() - 1, text.len() + 1] {
        let encoded = encode_into(&envelope, &mut vec![0; room]);
        assert_eq!(encoded.unwrap_err().reason, Reason::TooLarge, "{room} characters");
    }
    for room in [0, envelope.len() - 1, envelope.len() + 1, envelope.len() + 4] {
        assert!(!decode_into(&text, &mut vec![0; room]), "{room} bytes");
    }
    assert_eq!(decoded_len(4), None);
    assert_eq!(decoded_len(5), None);
}

#[test]
fn plain_text_that_looks_like_armor_or_like_the_escape_is_escaped() {
    for text in ["cmk1:", "cmk0:", "cmk1:x", "cmk0:cmk0:"] {
        assert!(needs_escape(text.as_bytes()), "{text}");
    }
    for text in ["", "cmk", "cmk1", "cmk2:", " cmk1:", "CMK1:"] {
        assert!(!needs_escape(text.as_bytes()), "{text}");
    }
}
