//! The example opens what the golden vectors hold: its promise to tenants and auditors.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

#[path = "../../../tests/vectors/case.rs"]
mod case;

use case::cases;
use std::process::{Command, Output};

const SUITE_1: &str = include_str!("../../../tests/vectors/suite1.json");
const SUITE_2: &str = include_str!("../../../tests/vectors/suite2.json");
const SUITE_3: &str = include_str!("../../../tests/vectors/suite3.json");
const SUITE_3_RULES: &str = include_str!("../../../tests/vectors/suite3_rules.json");
const SUITE_4: &str = include_str!("../../../tests/vectors/suite4.json");

fn open(arguments: &[&str]) -> Output {
    // Cargo builds examples before it runs tests, beside their directory.
    let tests = std::env::current_exe().unwrap();
    let example = tests.parent().unwrap().parent().unwrap().join("examples/open");
    Command::new(example).args(arguments).output().unwrap()
}

#[test]
fn opens_every_golden_envelope() {
    for case in cases(SUITE_1, "valid", 16) {
        let arguments = [case.tenant(), case.text("key"), case.text("envelope"), case.text("aad")];
        let opened = open(&arguments);
        assert!(opened.status.success(), "{}: {opened:?}", case.name());
        assert_eq!(opened.stdout, case.bytes("plaintext"), "{}", case.name());
    }
}

#[test]
fn opens_every_golden_envelope_of_a_column_and_its_armor() {
    let suites = [(SUITE_2, 19), (SUITE_3, 19), (SUITE_3_RULES, 7), (SUITE_4, 26)];
    for case in suites.into_iter().flat_map(|(suite, number)| cases(suite, "valid", number)) {
        for envelope in [case.text("envelope"), case.text("armor")] {
            let opened = open(&[case.tenant(), case.text("key"), envelope]);
            assert!(opened.status.success(), "{}: {opened:?}", case.name());
            assert_eq!(opened.stdout, case.bytes("plaintext"), "{}", case.name());
        }
    }
}

#[test]
fn says_what_is_wrong_and_prints_nothing_else() {
    let case = &cases(SUITE_1, "valid", 16)[0];
    let (key, envelope) = (case.text("key"), case.text("envelope"));
    let column = &cases(SUITE_2, "valid", 19)[0];
    let (column_key, armor) = (column.text("key"), column.text("armor"));
    for arguments in [
        &["nobody", key, envelope][..],
        &[case.tenant(), key, envelope, "00ff"],
        &[case.tenant(), "00", envelope],
        &[case.tenant(), key, "zz"],
        &[case.tenant(), key, "c1"],
        &[case.tenant(), key],
        &["nobody", column_key, armor],
        &[column.tenant(), column_key, &armor[..armor.len() - 1]],
        &[column.tenant(), column_key, armor, "00ff"],
        // A probe is no envelope, and neither is a suite that there isn't.
        &[column.tenant(), column_key, "c17f"],
        &[column.tenant(), column_key, "c105"],
    ] {
        let refused = open(arguments);
        assert!(!refused.status.success() && refused.stdout.is_empty(), "{arguments:?}");
        assert!(!refused.stderr.is_empty());
    }
}
