//! The behaviours of the list in `main.rs`, and what they share.

mod cryptography;
mod lifecycle;

use std::collections::HashMap;

use aws_sdk_kms::error::SdkError;
use aws_sdk_kms::operation::decrypt::{DecryptError, DecryptOutput};
use aws_sdk_kms::primitives::Blob;

pub use cryptography::*;
pub use lifecycle::*;

use crate::target::Target;

const SECRET: &[u8] = b"attack at dawn";

fn context(pairs: &[(&str, &str)]) -> Context {
    Some(pairs.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect())
}

fn acme() -> Context {
    context(&[("purpose", "values"), ("tenant", "acme")])
}

/// `SECRET` under the context of `acme()`.
async fn encrypted(target: &Target, key: &str) -> Blob {
    let call = target.kms.encrypt().key_id(key).plaintext(Blob::new(SECRET));
    let answer = call.set_encryption_context(acme()).send().await.expect("Encrypt");
    answer.ciphertext_blob.expect("a ciphertext")
}

type Context = Option<HashMap<String, String>>;
type Decrypted = Result<DecryptOutput, SdkError<DecryptError>>;

async fn decrypt(target: &Target, blob: &Blob, key: Option<&str>, context: Context) -> Decrypted {
    let call = target.kms.decrypt().ciphertext_blob(blob.clone());
    let call = call.set_key_id(key.map(str::to_owned));
    call.set_encryption_context(context).send().await
}
