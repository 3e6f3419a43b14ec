//! Files as people have them.

use super::*;
use aws_runtime::env_config::file::{EnvConfigFileKind, EnvConfigFiles};
use aws_types::os_shim_internal::{Env, Fs};

fn origin(config: &str, selected: Option<&str>) -> Origin {
    let files = EnvConfigFiles::builder().with_contents(EnvConfigFileKind::Config, config).build();
    let selected_profile = selected.map(|name| name.to_owned().into());
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let (fs, env) = (Fs::from_slice(&[]), Env::from_slice(&[]));
    let loaded = aws_config::profile::load(&fs, &env, &files, selected_profile);
    Origin::of(&runtime.block_on(loaded).unwrap(), selected.is_some())
}

fn base(config: &str) -> Base {
    origin(config, None).base
}

const KEYS: &str = "aws_access_key_id = AKIAFAKE\naws_secret_access_key = fake\n";

fn is_keys(base: &Base) -> bool {
    matches!(base, Base::Keys(keys) if keys.access_key_id() == "AKIAFAKE")
}

#[test]
fn keys_stand_in_the_profile_that_is_selected() {
    assert!(is_keys(&base(&format!("[default]\n{KEYS}"))));
    assert_eq!(base(&format!("[profile other]\n{KEYS}")), Base::Nothing);
    assert!(is_keys(&origin(&format!("[profile other]\n{KEYS}"), Some("other")).base));
    assert_eq!(base("[default]\nregion = eu-west-1\n"), Base::Nothing);
    assert_eq!(base("[default]\naws_access_key_id = AKIAFAKE\n"), Base::Broken);
    // Asked for by name and missing: a mistake.
    assert_eq!(origin(&format!("[default]\n{KEYS}"), Some("other")).base, Base::Broken);
}

#[test]
fn what_runs_a_program_or_waits_for_a_login_is_told_apart() {
    for unsupported in [
        "credential_process = /bin/true",
        "sso_session = corporate",
        "sso_start_url = https://corporate.example/start",
        "login_session = arn:aws:iam::111122223333:user/fake",
    ] {
        assert_eq!(base(&format!("[default]\n{unsupported}\n")), Base::Unsupported);
        let role =
            "[default]\nrole_arn = arn:aws:iam::111122223333:role/r\nsource_profile = base\n";
        let below = origin(&format!("{role}[profile base]\n{unsupported}\n"), None);
        assert_eq!((below.base, below.roles.len()), (Base::Unsupported, 1), "{unsupported}");
    }
}

#[test]
fn roles_are_assumed_from_the_base_on() {
    let config = format!(
        "[default]\nrole_arn = last\nexternal_id = x\nsource_profile = middle\n\
         [profile middle]\nrole_arn = first\nrole_session_name = s\nsource_profile = base\n\
         [profile base]\n{KEYS}"
    );
    let origin = origin(&config, None);
    assert!(is_keys(&origin.base));
    let arns: Vec<_> = origin.roles.iter().map(|role| &*role.arn).collect();
    assert_eq!(arns, ["first", "last"]);
    assert_eq!(origin.roles[0].session_name.as_deref(), Some("s"));
    assert_eq!(origin.roles[1].external_id.as_deref(), Some("x"));
}

#[test]
fn a_source_is_named_or_the_profile_itself() {
    for (source, found) in [
        ("credential_source = Environment", Base::Environment),
        ("credential_source = Ec2InstanceMetadata", Base::Imds),
        ("credential_source = EcsContainer", Base::Container),
        ("credential_source = Elsewhere", Base::Broken),
        ("credential_source = Environment\nsource_profile = default", Base::Broken),
        ("source_profile = nowhere", Base::Broken),
        ("", Base::Broken),
    ] {
        assert_eq!(base(&format!("[default]\nrole_arn = r\n{source}\n")), found, "{source}");
    }
    assert!(is_keys(&base(&format!("[default]\nrole_arn = r\nsource_profile = default\n{KEYS}"))));
    let circle = "[default]\nrole_arn = r\nsource_profile = b\n\
                  [profile b]\nrole_arn = r\nsource_profile = default\n";
    assert_eq!(base(circle), Base::Broken);
    let web = "[default]\nrole_arn = r\nweb_identity_token_file = /token\n";
    let found = origin(web, None);
    assert!(
        matches!(found.base, Base::WebIdentity { ref token_file, .. } if token_file == "/token")
    );
    assert!(found.roles.is_empty());
}
