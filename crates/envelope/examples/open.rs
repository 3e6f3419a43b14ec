//! Opens an envelope, given its data key: what a tenant or an auditor needs, without PostgreSQL and
//! without cmk_encrypt's server.
//!
//! ```text
//! open TENANT DATA_KEY_HEX ENVELOPE_HEX [AAD_HEX]
//!
//! cargo run -p cmk-envelope --example open -- acme 00…1f c101…
//! ```
//!
//! The data key comes from the tenant's own KMS: `aws kms decrypt` on `cmk.data_key.wrapped`, with
//! the encryption context `cmk_encrypt=v1,purpose=values,tenant=TENANT`. The envelope is what
//! stands in the column; psql prints it as hexadecimal after `\x`. The plaintext goes to standard
//! output as it is.

use cmk_crypto::aead::Cipher;
use cmk_crypto::commitment::Commitment;
use cmk_crypto::key::SecretKey;
use cmk_envelope::{Binding, Envelope};
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
        _ => return Err("usage: open TENANT DATA_KEY_HEX ENVELOPE_HEX [AAD_HEX]".into()),
    };
    let (dek, envelope, aad) = (bytes(dek)?, bytes(envelope)?, bytes(aad)?);
    let dek = SecretKey::from_slice(&dek).map_err(|_| "a data key has 32 bytes".to_owned())?;
    let envelope = Envelope::parse(&envelope).map_err(|error| error.to_string())?;
    if Commitment::to(&dek, tenant.as_bytes()).dek_id() != envelope.dek_id() {
        return Err("the envelope is sealed under another data key or for another tenant".into());
    }
    let mut plaintext = vec![0; envelope.plaintext_len()];
    let binding = Binding { tenant: tenant.as_bytes(), aad: &aad };
    let opened = envelope.open(&Cipher::new(&dek), &binding, &mut plaintext);
    opened.map(|()| plaintext).map_err(|error| error.to_string())
}

fn bytes(hex: &str) -> Result<Vec<u8>, String> {
    let hex = hex.strip_prefix("\\x").unwrap_or(hex);
    HEXLOWER_PERMISSIVE.decode(hex.as_bytes()).map_err(|_| "not hexadecimal".to_owned())
}
