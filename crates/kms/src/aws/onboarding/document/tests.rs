use super::*;
use crate::context::Purpose;
use crate::customer_key::CustomerKey;

const KEY: &str = "arn:aws:kms:eu-west-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab";
const MULTI: &str = "arn:aws:kms:eu-west-1:111122223333:key/mrk-1234abcd12ab34cd56ef1234567890ab";
const UNMADE: &str = "arn:aws:kms:eu-west-1:111122223333:key/00000000-0000-0000-0000-000000000000";
const FORMATS: [&str; 5] = ["guide", "policy", "cli", "terraform", "cloudformation"];

const NASTY: [&str; 8] = [
    "globex",
    "Ünïcode 東京 😀",
    r#"'"; $(id) `id` ${HOME} %{if true} {{ tenant }} {% raw %} \"#,
    "'\nEOF\nPOLICY\nrm -rf /\n'",
    "${aws:username} $${aws:PrincipalArn} ${AWS::AccountId}",
    "| a | b |\n|---|---|\n</td><script>alert(1)</script> [x](javascript:y) ``` `` `",
    "\u{202e}evil\u{2028}key: value\u{85}- item\u{feff}",
    KEY,
];

fn write_all(tenant: &str, mut seen: impl FnMut(&str, String)) {
    let key = |uri: &str, account: Option<u64>| {
        let options = account.map_or("{}".to_owned(), |account| {
            let role = format!("arn:aws:iam::{account}:role/path/cmk");
            format!(r#"{{"role_arn": "{role}", "external_id": "globex-5c0a1f"}}"#)
        });
        CustomerKey::parse(uri, &options, 0).unwrap()
    };
    let arn = "arn:aws:iam::444455556666:role/postgres";
    for uri in [KEY, MULTI, UNMADE] {
        for account in [None, Some(111122223333), Some(777788889999)] {
            for next in [None, Some(key(MULTI, None)), Some(key(KEY, Some(111122223333)))] {
                for (monitor_interval, is_guess) in [(None, true), (Some(300), false)] {
                    let (key, next) = (&key(uri, account), next.as_ref());
                    let used = KeyUse { tenant, key, next, purposes: &Purpose::ALL };
                    let principal = ServicePrincipal { name: arn.into(), is_guess };
                    let bounds = Bounds {
                        cache_ttl: Duration::from_secs(300),
                        soft_ttl: Duration::from_secs(200),
                        failure_ttl: Duration::from_secs(3),
                        monitor_interval: monitor_interval.map(Duration::from_secs),
                    };
                    for format in FORMATS {
                        seen(format, write(&used, &principal, &bounds, format).unwrap());
                    }
                }
            }
        }
    }
}

/// The tests of SQL parse all of them; here every branch of the templates is taken.
#[test]
fn every_variant_is_written_whatever_the_name() {
    for tenant in NASTY {
        write_all(tenant, |format, text| {
            assert!(text.ends_with('\n') && !text.ends_with("\n\n"), "{format}");
            if format != "guide" {
                let ascii = |b: u8| b == b'\n' || (b' '..=b'~').contains(&b);
                assert!(text.bytes().all(ascii), "{format}: {text}");
            }
        });
    }
}

/// So that nothing of a name is outside of the texts that quote it.
#[test]
fn a_name_changes_no_line_but_those_that_quote_it() {
    let of = |tenant: &str| {
        let mut all = Vec::new();
        write_all(tenant, |format, text| all.push((format.to_owned(), text)));
        all
    };
    // The condition of a name that looks like a policy variable is another one.
    let (plain, variable) = (of("globex"), of("${globex}"));
    for tenant in NASTY {
        let plain = if tenant.contains("${") { &variable } else { &plain };
        for ((format, plain), (_, nasty)) in plain.iter().zip(of(tenant)) {
            if format != "guide" {
                assert_eq!(plain.lines().count(), nasty.lines().count(), "{format}: {nasty}");
            }
        }
    }
}

#[test]
fn a_format_that_there_is_not_is_refused() {
    let key = CustomerKey::parse(KEY, "{}", 0).unwrap();
    let used = KeyUse { tenant: "globex", key: &key, next: None, purposes: &Purpose::ALL };
    let name = "arn:aws:iam::444455556666:role/postgres".into();
    let principal = ServicePrincipal { name, is_guess: false };
    let second = Duration::from_secs(1);
    let (cache_ttl, soft_ttl, failure_ttl) = (second, second, second);
    let bounds = Bounds { cache_ttl, soft_ttl, failure_ttl, monitor_interval: None };
    for format in ["", "Guide", "guide.md", "yaml"] {
        let error = write(&used, &principal, &bounds, format).unwrap_err();
        assert_eq!(error.reason, Reason::OnboardingFormat);
    }
    let name = "arn:aws-cn:iam::444455556666:role/postgres".into();
    let principal = ServicePrincipal { name, is_guess: false };
    let error = write(&used, &principal, &bounds, "guide").unwrap_err();
    assert_eq!(error.detail(), "reason=service_principal cause=partition");
}

#[test]
fn aliases_are_readable_where_names_are() {
    assert_eq!(slug("Globex GmbH & Co."), "globex-gmbh-co-");
    assert_eq!(slug("東京"), "");
    assert_eq!(slug(&"a".repeat(200)).len(), 41);
}

#[test]
fn numbers_are_said_as_people_say_them() {
    for (seconds, said) in [(300.0, "5 minutes"), (90.0, "90 seconds"), (1.0, "1 second")] {
        assert_eq!(spoken(Duration::from_secs_f64(seconds)).to_string(), said);
    }
    assert_eq!(spoken(Duration::from_millis(3750)).to_string(), "3.75 seconds");
}
