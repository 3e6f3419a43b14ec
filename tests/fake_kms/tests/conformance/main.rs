//! What AWS KMS does, checked with the AWS SDK.
//!
//! One list of behaviours runs against our server and against roto-aws, an independent one, so that
//! ours can't drift from what others understand; a test's name says which server it ran against.
//! Where roto-aws does not do as AWS does, the behaviour says so beside the expectation. What
//! roto-aws doesn't have at all is tested in the other modules, against ours alone.

mod access;
mod answers;
mod behaviours;
mod faults;
mod keys;
mod multi_region;
mod roto;
mod sts;
mod target;

/// The list.
macro_rules! behaviours {
    ($($behaviour:ident)*) => {
        mod on_fake_kms {
            $(#[tokio::test]
            async fn $behaviour() {
                crate::behaviours::$behaviour(&crate::target::Target::fake_kms("eu-west-1")).await;
            })*
        }

        mod on_roto_aws {
            $(#[tokio::test]
            async fn $behaviour() {
                crate::behaviours::$behaviour(&crate::target::Target::roto_aws("eu-west-1")).await;
            })*
        }
    };
}

behaviours! {
    what_is_encrypted_decrypts_under_the_same_context
    a_ciphertext_names_its_key
    the_order_of_the_context_does_not_matter
    another_context_does_not_decrypt
    another_key_does_not_decrypt
    a_damaged_ciphertext_does_not_decrypt
    a_data_key_comes_plain_and_wrapped
    a_data_key_comes_wrapped_alone
    a_data_key_has_the_length_asked_for
    a_data_key_needs_one_length
    plaintext_is_limited
    re_encrypt_moves_to_another_key_and_context
    re_encrypt_checks_its_source
    re_encrypt_checks_its_destination
    a_disabled_key_does_nothing_until_enabled
    a_key_pending_deletion_does_nothing_until_rescued
    only_a_pending_deletion_can_be_cancelled
    a_key_pending_deletion_changes_in_no_other_way
    deletion_waits_7_to_30_days
    a_key_is_described_in_every_state
    a_key_that_is_not_there_is_not_found
    keys_are_listed
    rotation_can_be_switched_on
    errors_carry_a_request_id
    answers_carry_a_request_id_of_their_own
}
