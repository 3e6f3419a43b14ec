//! Encrypt, Decrypt, ReEncrypt and the data keys, under keys that are enabled.

use aws_sdk_kms::primitives::Blob;
use aws_sdk_kms::types::DataKeySpec;

use super::{SECRET, acme, context, decrypt, encrypted};
use crate::target::{Target, code};

pub async fn what_is_encrypted_decrypts_under_the_same_context(target: &Target) {
    let key = target.key().await;
    let call = target.kms.encrypt().key_id(&key).plaintext(Blob::new(SECRET));
    let sealed = call.set_encryption_context(acme()).send().await.expect("Encrypt");
    assert_eq!(sealed.key_id.as_ref(), Some(&key));
    let blob = sealed.ciphertext_blob.expect("a ciphertext");
    let opened = decrypt(target, &blob, Some(&key), acme()).await.expect("Decrypt");
    assert_eq!(opened.plaintext.expect("a plaintext").as_ref(), SECRET);
    assert_eq!(opened.key_id.as_ref(), Some(&key));
}

pub async fn a_ciphertext_names_its_key(target: &Target) {
    let (_other, key) = (target.key().await, target.key().await);
    let blob = encrypted(target, &key).await;
    let opened = decrypt(target, &blob, None, acme()).await.expect("Decrypt without KeyId");
    assert_eq!(opened.plaintext.expect("a plaintext").as_ref(), SECRET);
    assert_eq!(opened.key_id.as_ref(), Some(&key));
    // The same key by its bare id
    let id = key.rsplit('/').next();
    let opened = decrypt(target, &blob, id, acme()).await.expect("Decrypt with a bare id");
    assert_eq!(opened.key_id.as_ref(), Some(&key), "the answer names the ARN all the same");
}

pub async fn the_order_of_the_context_does_not_matter(target: &Target) {
    let key = target.key().await;
    let blob = encrypted(target, &key).await;
    // A HashMap of its own iterates in an order of its own; ten make it likely that both occur.
    for _ in 0..10 {
        let context = context(&[("tenant", "acme"), ("purpose", "values")]);
        let opened = decrypt(target, &blob, None, context).await.expect("Decrypt");
        assert_eq!(opened.plaintext.expect("a plaintext").as_ref(), SECRET);
    }
}

pub async fn another_context_does_not_decrypt(target: &Target) {
    let key = target.key().await;
    let blob = encrypted(target, &key).await;
    for wrong in [
        None,
        context(&[("tenant", "acme")]),
        context(&[("purpose", "values"), ("tenant", "globex")]),
        context(&[("purpose", "values"), ("tenant", "ACME")]),
        context(&[("purpose", "acme"), ("tenant", "values")]),
        context(&[("purpose", "values"), ("tenant", "acme"), ("extra", "")]),
    ] {
        let what = format!("{wrong:?}");
        let refusal = code(decrypt(target, &blob, Some(&key), wrong).await);
        assert_eq!(refusal, "InvalidCiphertextException", "{what}");
    }
}

pub async fn another_key_does_not_decrypt(target: &Target) {
    let (key, other) = (target.key().await, target.key().await);
    let blob = encrypted(target, &key).await;
    let refusal = code(decrypt(target, &blob, Some(&other), acme()).await);
    assert_eq!(refusal, "IncorrectKeyException");
}

pub async fn a_damaged_ciphertext_does_not_decrypt(target: &Target) {
    let key = target.key().await;
    let blob = encrypted(target, &key).await.into_inner();
    let mut damaged = vec![b"\0".to_vec(), b"no ciphertext at all".to_vec()];
    damaged.extend((1..blob.len()).map(|length| blob[..length].to_vec()));
    damaged.push([&blob[..], b"\0"].concat());
    // roto-aws does not encrypt: its ciphertext is JSON with the plaintext in it, so that a changed
    // byte within the plaintext goes unnoticed. Of AWS and of ours, every byte is authentic.
    let authentic = target.aws_or_roto(blob.len(), 1);
    damaged.extend((0..authentic).map(|index| {
        let mut flipped = blob.clone();
        flipped[index] ^= 1;
        flipped
    }));
    for bytes in damaged {
        for key in [Some(key.as_str()), None] {
            let refusal = code(decrypt(target, &Blob::new(&bytes[..]), key, acme()).await);
            assert_eq!(refusal, "InvalidCiphertextException", "{bytes:x?}");
        }
    }
}

pub async fn a_data_key_comes_plain_and_wrapped(target: &Target) {
    let key = target.key().await;
    let call = target.kms.generate_data_key().key_id(&key).key_spec(DataKeySpec::Aes256);
    let answer = call.set_encryption_context(acme()).send().await.expect("GenerateDataKey");
    assert_eq!(answer.key_id.as_ref(), Some(&key));
    let (plain, wrapped) =
        (answer.plaintext.expect("plain"), answer.ciphertext_blob.expect("wrapped"));
    assert_eq!(plain.as_ref().len(), 32);
    let opened = decrypt(target, &wrapped, Some(&key), acme()).await.expect("Decrypt");
    assert_eq!(opened.plaintext, Some(plain));
}

pub async fn a_data_key_comes_wrapped_alone(target: &Target) {
    let key = target.key().await;
    let mut plain = Vec::new();
    for _ in 0..2 {
        let call = target.kms.generate_data_key_without_plaintext().key_id(&key);
        let call = call.key_spec(DataKeySpec::Aes256).set_encryption_context(acme());
        let answer = call.send().await.expect("GenerateDataKeyWithoutPlaintext");
        assert_eq!(answer.key_id.as_ref(), Some(&key));
        let wrapped = answer.ciphertext_blob.expect("wrapped");
        let opened = decrypt(target, &wrapped, Some(&key), acme()).await.expect("Decrypt");
        plain.push(opened.plaintext.expect("a plaintext").into_inner());
    }
    assert_eq!(plain[0].len(), 32);
    assert_ne!(plain[0], plain[1], "each data key is new");
}

pub async fn a_data_key_has_the_length_asked_for(target: &Target) {
    let key = target.key().await;
    for length in [1, 64, 1024] {
        let call = target.kms.generate_data_key().key_id(&key).number_of_bytes(length);
        let plain = call.send().await.expect("GenerateDataKey").plaintext.expect("plain");
        assert_eq!(plain.as_ref().len() as i32, length);
    }
    let call = target.kms.generate_data_key().key_id(&key).key_spec(DataKeySpec::Aes128);
    let plain = call.send().await.expect("GenerateDataKey").plaintext.expect("plain");
    assert_eq!(plain.as_ref().len(), 16);
}

pub async fn a_data_key_needs_one_length(target: &Target) {
    let key = target.key().await;
    let call = || target.kms.generate_data_key().key_id(&key);
    let both = call().number_of_bytes(32).key_spec(DataKeySpec::Aes256);
    for wrong in [call(), both, call().number_of_bytes(0), call().number_of_bytes(1025)] {
        assert_eq!(code(wrong.send().await), "ValidationException");
    }
}

pub async fn plaintext_is_limited(target: &Target) {
    let key = target.key().await;
    let call = |length| target.kms.encrypt().key_id(&key).plaintext(Blob::new(vec![7; length]));
    call(1).send().await.expect("one byte");
    call(4096).send().await.expect("4096 bytes");
    assert_eq!(code(call(4097).send().await), "ValidationException");
    if target.is_roto_aws() {
        // roto-aws encrypts nothing at all, too; AWS wants a byte.
        call(0).send().await.expect("an empty plaintext on roto-aws");
    } else {
        assert_eq!(code(call(0).send().await), "ValidationException");
    }
}

pub async fn re_encrypt_moves_to_another_key_and_context(target: &Target) {
    let (old, new) = (target.key().await, target.key().await);
    let blob = encrypted(target, &old).await;
    let globex = context(&[("tenant", "globex")]);
    let call = target.kms.re_encrypt().ciphertext_blob(blob.clone()).destination_key_id(&new);
    let call = call.set_source_encryption_context(acme());
    let call = call.set_destination_encryption_context(globex.clone());
    let moved = call.send().await.expect("ReEncrypt");
    assert_eq!((moved.source_key_id.as_ref(), moved.key_id.as_ref()), (Some(&old), Some(&new)));
    let moved = moved.ciphertext_blob.expect("a ciphertext");
    let opened =
        decrypt(target, &moved, Some(&new), globex.clone()).await.expect("Decrypt of the new");
    assert_eq!(opened.plaintext.expect("a plaintext").as_ref(), SECRET);
    let opened = decrypt(target, &blob, Some(&old), acme()).await.expect("Decrypt of the old");
    assert_eq!(opened.plaintext.expect("a plaintext").as_ref(), SECRET);
    let refusal = code(decrypt(target, &moved, Some(&old), globex).await);
    assert_eq!(refusal, "IncorrectKeyException");
    let refusal = code(decrypt(target, &moved, None, acme()).await);
    assert_eq!(refusal, "InvalidCiphertextException");
}

pub async fn re_encrypt_checks_its_source(target: &Target) {
    let (old, new) = (target.key().await, target.key().await);
    let blob = encrypted(target, &old).await;
    let call = || target.kms.re_encrypt().ciphertext_blob(blob.clone()).destination_key_id(&new);
    let wrong_context = call().set_source_encryption_context(context(&[("tenant", "globex")]));
    assert_eq!(code(wrong_context.send().await), "InvalidCiphertextException");
    let wrong_key = call().set_source_encryption_context(acme()).source_key_id(&new);
    assert_eq!(code(wrong_key.send().await), "IncorrectKeyException");
    let right = call().set_source_encryption_context(acme()).source_key_id(&old);
    right.send().await.expect("the same call with the right key");
}

pub async fn re_encrypt_checks_its_destination(target: &Target) {
    let (old, new) = (target.key().await, target.key().await);
    let blob = encrypted(target, &old).await;
    target.kms.disable_key().key_id(&new).send().await.expect("DisableKey");
    let call = target.kms.re_encrypt().ciphertext_blob(blob).destination_key_id(&new);
    let refusal = code(call.set_source_encryption_context(acme()).send().await);
    assert_eq!(refusal, "DisabledException");
}
