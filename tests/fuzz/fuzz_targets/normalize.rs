//! Any bytes as a value that is searched for: normalizing is total, changes nothing the second
//! time, and keeps what it says.

#![no_main]

use cmk_envelope::column::Normalization;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    for by in Normalization::ALL {
        let once = by.apply(bytes).unwrap();
        assert_eq!(by.apply(&once).unwrap(), once, "{by:?} is not idempotent");
        let Ok(text) = std::str::from_utf8(bytes) else {
            assert_eq!(once, bytes);
            continue;
        };
        let normalized = std::str::from_utf8(&once).expect("text stays text");
        match by {
            Normalization::None => assert_eq!(normalized, text),
            Normalization::Lower => {
                let mut lower = text.chars().flat_map(char::to_lowercase);
                assert!(normalized.chars().all(|c| lower.next() == Some(c)));
                assert_eq!(lower.next(), None);
            }
            Normalization::Digits => {
                let mut digits = bytes.iter().filter(|byte| byte.is_ascii_digit());
                assert!(once.iter().all(|byte| digits.next() == Some(byte)));
                assert_eq!(digits.next(), None);
            }
            Normalization::Alnum => {
                assert!(normalized.chars().all(char::is_alphanumeric));
                let lower = Normalization::Lower.apply(bytes).unwrap();
                assert_eq!(by.apply(&lower).unwrap(), once, "letter case makes a difference");
            }
        }
    }
});
