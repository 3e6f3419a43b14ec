//! Any bytes as an envelope: parsing is total, its answer is what the layout says, nothing is
//! forged.

#![no_main]

use cmk_envelope::{Envelope, MAGIC, OVERHEAD, SUITE_1};
use golden::GOLDEN;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let expected = match bytes {
        [MAGIC, SUITE_1, ..] if bytes.len() >= OVERHEAD => None,
        [MAGIC, suite, ..] if *suite != SUITE_1 => Some("unknown_suite"),
        _ => Some("not_an_envelope"),
    };
    match Envelope::parse(bytes) {
        Ok(envelope) => {
            assert_eq!(expected, None);
            assert_eq!(envelope.suite(), bytes[1]);
            assert_eq!(envelope.dek_id().0, bytes[2..18]);
            assert_eq!(envelope.plaintext_len() + OVERHEAD, bytes.len());
            GOLDEN.iter().for_each(|golden| golden.judge(bytes, &envelope));
        }
        Err(error) => assert_eq!(expected, Some(error.reason.name())),
    }
});
