//! Opens an envelope, given its data key: what a tenant or an auditor needs, without PostgreSQL and
//! without cmk_encrypt's server.
//!
//! ```text
//! open TENANT DATA_KEY_HEX ENVELOPE [AAD_HEX]
//!
//! cargo run -p cmk-envelope --example open -- acme 00…1f c101…
//! cargo run -p cmk-envelope --example open -- acme 00…1f cmk1:wQI…
//! ```
//!
//! The data key comes from the tenant's own KMS: `aws kms decrypt` on `cmk.data_key.wrapped`, with
//! the encryption context `cmk_encrypt=v1,purpose=values,tenant=TENANT`. The envelope is what
//! stands in the column. psql prints bytea as hexadecimal after `\x`; a protected column is printed
//! as armor, which begins with `cmk1:`, and is bound to no aad. The plaintext goes to standard
//! output as it is.

use cmk_crypto::aead::Cipher;
use cmk_crypto::commitment::Commitment;
use cmk_crypto::key::SecretKey;
use cmk_envelope::column::ColumnEnvelope;
use cmk_envelope::{Binding, Envelope, MAGIC, SUITE_1, armor};
use cmk_error::Error;
use data_encoding::HEXLOWER_PERMISSIVE;
use std::io::Write;
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match open(&arguments) {
        Ok(plaintext) if std::io::stdout().write_all(&plaintext).is_ok() => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(problem) => {
            eprintln!("{problem}");
            ExitCode::FAILURE
        }
    }
}

fn open(arguments: &[String]) -> Result<Vec<u8>, String> {
    let (tenant, dek, envelope, aad) = match arguments {
        [tenant, dek, envelope] => (tenant, dek, envelope, ""),
        [tenant, dek, envelope, aad] => (tenant, dek, envelope, aad.as_str()),
        _ => return Err("usage: open TENANT DATA_KEY_HEX ENVELOPE [AAD_HEX]".into()),
    };
    let (dek, envelope, aad) = (hexadecimal(dek)?, bytes(envelope)?, hexadecimal(aad)?);
    let dek = SecretKey::from_slice(&dek).map_err(|_| "a data key has 32 bytes".to_owned())?;
    let commitment = Commitment::to(&dek, tenant.as_bytes());
    let sealed_under = |dek_id| {
        let same = commitment.dek_id() == dek_id;
        let other = "the envelope is sealed under another data key or for another tenant";
        same.then_some(Cipher::new(&dek)).ok_or_else(|| other.to_owned())
    };
    let text = |error: Error| error.to_string();

    if matches!(envelope.as_slice(), [MAGIC, suite, ..] if *suite != SUITE_1) {
        if !aad.is_empty() {
            return Err("the envelope of a protected column is bound to no aad".into());
        }
        let envelope = ColumnEnvelope::parse(&envelope).map_err(text)?;
        let mut plaintext = vec![0; envelope.plaintext_len()];
        let cipher = sealed_under(envelope.dek_id())?;
        envelope.open(&cipher, tenant.as_bytes(), &mut plaintext).map_err(text)?;
        return Ok(plaintext);
    }
    let envelope = Envelope::parse(&envelope).map_err(text)?;
    let mut plaintext = vec![0; envelope.plaintext_len()];
    let binding = Binding { tenant: tenant.as_bytes(), aad: &aad };
    envelope.open(&sealed_under(envelope.dek_id())?, &binding, &mut plaintext).map_err(text)?;
    Ok(plaintext)
}

/// An envelope, as armor or in hexadecimal.
fn bytes(text: &str) -> Result<Vec<u8>, String> {
    if !text.starts_with(armor::PREFIX) {
        return hexadecimal(text);
    }
    let envelope = armor::decode(text.as_bytes()).map_err(|error| error.to_string())?;
    envelope.ok_or_else(|| "damaged armor".to_owned())
}

fn hexadecimal(text: &str) -> Result<Vec<u8>, String> {
    let hex = text.strip_prefix("\\x").unwrap_or(text);
    HEXLOWER_PERMISSIVE.decode(hex.as_bytes()).map_err(|_| "not hexadecimal".to_owned())
}
