//! Documents for owners of keys, out of the templates beside this file.
//!
//! The language of a template decides how every value is quoted that is put into it, so that a
//! template can't forget to. What goes in as it is, is plain: see [`bare`] and [`plain_json`].

use super::key_policy::{Allowed, AllowedRole};
use super::policy::Policy;
use super::principal::Principal;
use super::quote::{code_span, hcl, plain_json, shell, yaml};
use crate::context::{EncryptionContext, Purpose};
use crate::onboarding::{Bounds, KeyUse, ServicePrincipal};
use cmk_error::{Reason, Result};
use minijinja::syntax::SyntaxConfig;
use minijinja::value::Value;
use minijinja::{AutoEscape, Environment, Output, State, UndefinedBehavior};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::time::Duration;

/// A format, and the template that makes it.
const TEMPLATES: [(&str, &str, &str); 4] = [
    ("guide", "guide.md", include_str!("guide.md.tmpl")),
    ("cli", "cli.sh", include_str!("cli.sh.tmpl")),
    ("terraform", "main.tf", include_str!("main.tf.tmpl")),
    ("cloudformation", "stack.yaml", include_str!("stack.yaml.tmpl")),
];

/// The format that takes no template: the whole policy of the key.
const POLICY: &str = "policy";

type Values = BTreeMap<&'static str, Value>;

/// # Errors
/// As [`Onboarding::document`](crate::Onboarding::document).
pub fn write(
    used: &KeyUse<'_>,
    principal: &ServicePrincipal,
    bounds: &Bounds,
    format: &str,
) -> Result<String> {
    let template = TEMPLATES.iter().find(|(name, ..)| *name == format);
    if template.is_none() && format != POLICY {
        return Err(Reason::OnboardingFormat.into());
    }
    let by = Principal::parse(&principal.name)?;
    let allowed = Allowed::new(used, &by)?;
    let Some((_, file, template)) = template else {
        return Ok(allowed.whole_key_policy().to_text() + "\n");
    };
    let mut values = values(used, &allowed, &by);
    values.insert("principal_is_guess", principal.is_guess.into());
    values.extend(numbers(bounds));
    Ok(render(file, template, &values))
}

/// # Panics
/// If a template uses a value that there isn't, which the tests see: they render each template in
/// all its variants.
fn render(file: &'static str, template: &'static str, values: &Values) -> String {
    let mut environment = Environment::empty();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    let mut syntax = SyntaxConfig::builder();
    syntax.trim_blocks(true).lstrip_blocks(true).keep_trailing_newline(true);
    environment.set_syntax(syntax.build().expect("the default delimiters"));
    environment.set_auto_escape_callback(|file| {
        let (_, language) = file.rsplit_once('.').unwrap_or_default();
        AutoEscape::Custom(language.to_owned().into())
    });
    environment.set_formatter(quoted);
    environment.add_filter("indent", indent);
    environment
        .render_named_str(file, template, values)
        .unwrap_or_else(|error| panic!("template {file}: {error}"))
}

fn quoted(
    out: &mut Output<'_>,
    state: &mut State<'_, '_>,
    value: &Value,
) -> std::result::Result<(), minijinja::Error> {
    let text = value.to_string();
    let text = match state.auto_escape() {
        _ if value.is_safe() => text,
        AutoEscape::Custom(language) if language == "sh" => shell(&text),
        AutoEscape::Custom(language) if language == "tf" => hcl(&text),
        AutoEscape::Custom(language) if language == "yaml" => yaml(&text),
        _ => code_span(&text),
    };
    out.write_str(&text).map_err(minijinja::Error::from)
}

/// All lines but the first, of what goes in as it is.
fn indent(value: &Value, by: usize) -> Value {
    let text = value.to_string().replace('\n', &format!("\n{}", " ".repeat(by)));
    match value.is_safe() {
        true => Value::from_safe_string(text),
        false => Value::from(text),
    }
}

fn values(used: &KeyUse<'_>, allowed: &Allowed, by: &Principal) -> Values {
    let tenant = used.tenant;
    let grant: BTreeMap<_, _> = EncryptionContext::new(tenant, Purpose::Values).pairs().into();
    let key = &allowed.key;
    let digest = Sha256::digest(tenant);
    let hash: String = digest[..4].iter().map(|byte| format!("{byte:02x}")).collect();
    let described = format!("cmk_encrypt: data keys of tenant {}", plain_json(&tenant));
    let mut values: Values = [
        ("tenant", tenant.into()),
        ("tenant_json", Value::from_safe_string(plain_json(&tenant))),
        ("tenant_is_ascii", tenant.is_ascii().into()),
        ("description", described.into()),
        ("hash", bare(&hash)),
        ("key_arn", bare(key.as_str())),
        ("key_id", bare(key.id())),
        ("region", bare(key.region())),
        ("account", bare(key.account())),
        ("partition", bare(key.partition())),
        ("is_multi_region", key.is_multi_region().into()),
        ("is_placeholder", key.is_placeholder().into()),
        ("alias", bare(&format!("alias/cmk-encrypt/{}{hash}", slug(tenant)))),
        ("principal", bare(by.arn())),
        ("principal_account", bare(by.account())),
        ("policy", text(&allowed.whole_key_policy())),
        (
            "grant",
            Value::from_safe_string(plain_json(
                &[("EncryptionContextEquals", grant)].into_iter().collect::<BTreeMap<_, _>>(),
            )),
        ),
        ("grant_index", used.purposes.contains(&Purpose::Index).into()),
    ]
    .into();
    values.insert("key_policy", allowed.key_policy.as_ref().map_or(Value::from(()), text));
    let of_role = |it: &Allowed| {
        it.role.as_ref().map_or(Value::from(()), |role| role_values(role, it.key.as_str()))
    };
    values.insert("role", of_role(allowed));
    values.insert(
        "next",
        allowed.next.as_ref().map_or(Value::from(()), |next| {
            let values: Values = [
                ("key_arn", bare(next.key.as_str())),
                ("policy", text(&next.whole_key_policy())),
                ("role", of_role(next)),
            ]
            .into();
            Value::from(values)
        }),
    );
    values
}

fn role_values(AllowedRole { role, trust, permissions }: &AllowedRole, key_arn: &str) -> Value {
    let (path, name) = role.arn.path_and_name();
    let permissions = permissions.to_text();
    // Where the document finds or makes the key, its ARN is a variable. Inside of texts there are
    // no quotes, so nothing but a statement's resource is meant.
    let on = |variable: &str| {
        let (known, found) = (format!("\"{key_arn}\""), format!("\"{variable}\""));
        let resource = |arn: &str| format!("\"Resource\": {arn}");
        Value::from_safe_string(permissions.replace(&resource(&known), &resource(&found)))
    };
    let values: Values = [
        ("arn", bare(role.arn.as_str())),
        ("account", bare(role.arn.account())),
        ("path", bare(path)),
        ("name", bare(name)),
        ("sessions", bare(&sessions(role.arn.as_str(), name))),
        ("trust", text(trust)),
        ("permissions_for_shell", on("'\"$key_arn\"'")),
        ("permissions_for_terraform", on("${aws_kms_key.cmk_encrypt.arn}")),
        ("permissions_for_stack", on("${Key.Arn}")),
        ("permissions", Value::from_safe_string(permissions.clone())),
    ]
    .into();
    Value::from(values)
}

/// How the ARNs of a role's sessions begin.
fn sessions(arn: &str, name: &str) -> String {
    let account = arn.split_once(":role/").map_or("", |(account, _)| account);
    format!("{}:assumed-role/{name}/", account.replacen(":iam:", ":sts:", 1))
}

fn numbers(bounds: &Bounds) -> Values {
    let Bounds { cache_ttl, soft_ttl, failure_ttl, monitor_interval } = *bounds;
    let an_hour = |every: Duration| (3600.0 / every.as_secs_f64().max(1.0)).ceil() as u64;
    // The monitor asks at four fifths of the soft TTL while a key is in use.
    let calls = match monitor_interval {
        Some(_) => an_hour(soft_ttl.mul_f64(0.8)),
        None => an_hour(soft_ttl),
    };
    let calls_a_month = calls * 24 * 30;
    let longest_failure = failure_ttl.mul_f64(1.25);
    [
        ("cache_ttl", spoken(cache_ttl)),
        ("longest_failure", spoken(longest_failure)),
        ("assumed_bound", spoken(cache_ttl + Duration::from_secs(900))),
        ("monitor_interval", monitor_interval.map_or(Value::from(()), spoken)),
        ("calls_an_hour", bare(&calls.to_string())),
        ("calls_a_month", bare(&calls_a_month.to_string())),
    ]
    .into()
}

/// `90 seconds`, `5 minutes`.
fn spoken(duration: Duration) -> Value {
    let seconds = duration.as_secs_f64();
    let (number, unit) = match seconds {
        _ if seconds >= 120.0 && seconds % 60.0 == 0.0 => (seconds / 60.0, "minutes"),
        1.0 => (1.0, "second"),
        _ => (seconds, "seconds"),
    };
    Value::from_safe_string(format!("{} {unit}", (number * 100.0).round() / 100.0))
}

fn text(policy: &Policy) -> Value {
    Value::from_safe_string(policy.to_text())
}

/// What needs no quotes in any of the languages, and so goes in as it is. Whatever isn't such a
/// text is quoted, and so out of place, but harmless.
fn bare(text: &str) -> Value {
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || b"+=,.@_/-:".contains(&b);
    match text.bytes().all(is_plain) {
        true => Value::from_safe_string(text.to_owned()),
        false => Value::from(text),
    }
}

/// What is readable of a name where only letters, digits and hyphens are allowed.
fn slug(name: &str) -> String {
    let letters = name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' });
    let letters: String = letters.take(40).collect();
    let words: Vec<_> = letters.split('-').filter(|word| !word.is_empty()).collect();
    words.iter().map(|word| format!("{}-", word.to_ascii_lowercase())).collect()
}

#[cfg(test)]
mod tests;
