"""What KMS says reaches SQL as the right error, and KMS is asked as rarely as promised."""

import re
import socket
import time

import pytest
from psycopg.types.json import Jsonb

from server import AMBIENT_ACCESS_KEY_ID, until
from support import CANARY, fails, unique


def options(role_arn, external_id):
    """Of an AWS key; what is None is left out."""
    given = {"role_arn": role_arn, "external_id": external_id}
    return Jsonb({name: value for name, value in given.items() if value is not None})


@pytest.fixture
def sealed(app, dba, tenant):
    """A tenant, an envelope, and nothing about them in any cache."""
    made = tenant()
    envelope = app.encrypt(made)
    dba.run("SELECT cmk.evict(%s)", made.name)
    return made, envelope


KEY_STATES = {
    "Disabled": ("55000", "key_disabled"),
    "PendingDeletion": ("55000", "key_pending_deletion"),
    "Deleted": ("55000", "key_not_found"),
    "PendingImport": ("55000", "key_invalid_state"),
    "Unavailable": ("58000", "kms_server_error"),
    "Creating": ("58000", "kms_server_error"),
    "Updating": ("58000", "kms_server_error"),
}


@pytest.mark.parametrize("state", KEY_STATES)
def test_each_key_state_has_its_error_and_enabling_brings_the_data_back(server, dba, app, kms, sealed, state):
    made, envelope = sealed
    kms.state(made.key_uri, state)
    with server.settings(kms_max_attempts=1):
        with fails(*KEY_STATES[state], made):
            app.decrypt(made, envelope)
        with fails(*KEY_STATES[state], made):
            app.encrypt(made)
        with fails(*KEY_STATES[state], made):
            dba.run("SELECT cmk.rotate_tenant(%s)", made.name)
    kms.state(made.key_uri, "Enabled")
    dba.run("SELECT cmk.evict(%s)", made.name)
    assert app.decrypt(made, envelope) == CANARY


@pytest.mark.parametrize("state", KEY_STATES)
def test_a_tenant_cannot_be_registered_under_a_key_in_that_state(server, dba, kms, state):
    name, arn = unique("tenant"), kms.key()
    kms.state(arn, state)
    with server.settings(kms_max_attempts=1), fails(*KEY_STATES[state], name):
        dba.run("SELECT cmk.register_tenant(%s, %s)", name, arn)
    assert not dba.all("SELECT FROM cmk.tenant WHERE tenant = %s", name)


def test_a_denied_key_goes_dark_while_another_tenant_reads_on(dba, app, kms, sealed, tenant):
    made, envelope = sealed
    other = tenant()
    foreign = app.encrypt(other)
    kms.deny(made.key_uri)
    with fails("55000", "key_access_denied", made):
        app.decrypt(made, envelope)
    assert app.decrypt(other, foreign) == CANARY
    kms.deny(made.key_uri, False)
    dba.run("SELECT cmk.evict(%s)", made.name)
    assert app.decrypt(made, envelope) == CANARY


FAULTS = [
    ("reset", {}, "58000", "kms_unreachable"),
    ("hang", {}, "58000", "kms_timeout"),
    ("delay", {"millis": 1000}, "58000", "kms_timeout"),
    ("status", {"status": 500, "code": "KMSInternalException"}, "58000", "kms_server_error"),
    ("status", {"status": 503, "code": "ServiceUnavailableException"}, "58000", "kms_server_error"),
    ("status", {"status": 500, "code": "DependencyTimeoutException"}, "58000", "kms_server_error"),
    ("status", {"status": 400, "code": "ExpiredTokenException"}, "F0000", "credentials"),
    ("status", {"status": 400, "code": "InvalidSignatureException"}, "F0000", "credentials"),
    ("status", {"status": 400, "code": "ValidationException"}, "F0000", "kms_rejected"),
    ("status", {"status": 400, "code": "InvalidKeyUsageException"}, "F0000", "key_unusable"),
    ("status", {"status": 400, "code": "IncorrectKeyException"}, "39000", "wrapped_key_rejected"),
    ("throttle", {}, "53000", "kms_throttled"),
    ("status", {"status": 400, "code": "LimitExceededException"}, "53000", "kms_throttled"),
    ("garbage", {}, "58000", "kms_server_error"),
    ("wrong_key_id", {}, "39000", "kms_answer_mismatch"),
    ("short_key", {}, "39000", "kms_answer_mismatch"),
]


@pytest.mark.parametrize("kind, options, sqlstate, reason", FAULTS, ids=lambda v: str(v) if v else "-")
def test_each_fault_of_kms_has_its_error_and_the_next_call_works(
    server, dba, app, kms, sealed, kind, options, sqlstate, reason
):
    made, envelope = sealed
    with server.settings(kms_max_attempts=1, kms_attempt_timeout="200ms"):
        with kms.fault(kind, arn=made.key_uri, **options), fails(sqlstate, reason, made):
            app.decrypt(made, envelope)
        dba.run("SELECT cmk.evict(%s)", made.name)
        assert app.decrypt(made, envelope) == CANARY


@pytest.mark.parametrize("kind", ["garbage", "wrong_key_id", "short_key"])
def test_a_wrong_answer_during_registration_leaves_nothing(server, dba, kms, kind):
    name, arn = unique("tenant"), kms.key()
    with server.settings(kms_max_attempts=1), kms.fault(kind, arn=arn, operation="Decrypt"):
        error = ("58000", "kms_server_error") if kind == "garbage" else ("39000", "kms_answer_mismatch")
        with fails(*error, name):
            dba.run("SELECT cmk.register_tenant(%s, %s)", name, arn)
    assert not dba.all("SELECT FROM cmk.tenant WHERE tenant = %s", name)


def test_a_slow_answer_within_the_limits_is_taken(app, kms, sealed):
    with kms.fault("delay", arn=sealed[0].key_uri, millis=300):
        assert app.decrypt(*sealed) == CANARY


def test_the_operation_timeout_bounds_all_attempts_together(server, app, kms, sealed):
    with server.settings(kms_operation_timeout="400ms", kms_attempt_timeout="300ms", kms_max_attempts=10):
        began = time.monotonic()
        with kms.fault("hang", arn=sealed[0].key_uri), fails("58000", "kms_timeout", sealed[0]):
            app.decrypt(*sealed)
        assert 0.3 < time.monotonic() - began < 0.9


def test_the_connect_timeout_bounds_a_connect_that_nobody_answers(server, app, sealed):
    with socket.socket() as deaf, socket.socket() as queued:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(0)
        queued.connect(deaf.getsockname())  # fills the queue: the next SYN is dropped
        url = f"http://127.0.0.1:{deaf.getsockname()[1]}"
        with server.settings(kms_endpoint_url=url, kms_connect_timeout="200ms", kms_max_attempts=1):
            began = time.monotonic()
            with fails("58000", "kms_timeout", sealed[0]):
                app.decrypt(*sealed)
            assert time.monotonic() - began < 0.9


@pytest.mark.parametrize("kind, options", [("status", {"status": 500, "code": "KMSInternalException"}), ("throttle", {}),
                                           ("reset", {})])
def test_a_passing_fault_is_retried_and_never_seen(app, kms, sealed, kind, options):
    made, envelope = sealed
    before = kms.calls(made.key_uri)
    with kms.fault(kind, arn=made.key_uri, times=2, **options):
        assert app.decrypt(made, envelope) == CANARY
    assert kms.calls(made.key_uri) == before + 3


def test_the_number_of_attempts_is_bounded(server, app, kms, sealed):
    made, envelope = sealed
    before = kms.calls(made.key_uri)
    with server.settings(kms_max_attempts=2), kms.fault("throttle", arn=made.key_uri):
        with fails("53000", "kms_throttled", made):
            app.decrypt(made, envelope)
    assert kms.calls(made.key_uri) == before + 2


def test_a_revocation_is_never_retried(app, kms, sealed):
    made, envelope = sealed
    before = kms.calls(made.key_uri)
    kms.state(made.key_uri, "Disabled")
    with fails("55000", "key_disabled", made):
        app.decrypt(made, envelope)
    assert kms.calls(made.key_uri) == before + 1


def test_a_failed_key_is_asked_once_not_once_a_row(server, dba, app, kms, sealed):
    made, envelope = sealed
    before = kms.calls(made.key_uri)
    kms.state(made.key_uri, "Disabled")
    for _ in range(20):
        with fails("55000", "key_disabled", made):
            app.decrypt(made, envelope)
    rows = app.all(
        "SELECT cmk_try_decrypt(%s, %b, forgive => ARRAY['key_disabled']) FROM generate_series(1, 1000)",
        made.name, envelope,
    )
    assert rows == [(None,)] * 1000
    assert kms.calls(made.key_uri) == before + 1


def test_a_remembered_failure_is_forgotten_after_its_time(server, app, kms, sealed):
    made, envelope = sealed
    with server.settings(failure_ttl="400ms"):
        before = kms.calls(made.key_uri)
        kms.state(made.key_uri, "Disabled")
        with fails("55000", "key_disabled", made):
            app.decrypt(made, envelope)
        kms.state(made.key_uri, "Enabled")
        began = time.monotonic()
        forgiven = "SELECT cmk_try_decrypt(%s, %b, forgive => ARRAY['key_disabled'])"
        until(lambda: app.one(forgiven, made.name, envelope) == CANARY, timeout=3)
        assert 0.2 < time.monotonic() - began < 1.0
        assert kms.calls(made.key_uri) == before + 2


def test_evict_forgets_a_remembered_failure(dba, app, kms, sealed):
    made, envelope = sealed
    kms.state(made.key_uri, "Disabled")
    with fails("55000", "key_disabled", made):
        app.decrypt(made, envelope)
    kms.state(made.key_uri, "Enabled")
    dba.run("SELECT cmk.evict(%s)", made.name)
    assert app.decrypt(made, envelope) == CANARY


def test_every_request_carries_the_context_and_only_the_two_operations_needed(dba, app, kms, tenant):
    made = tenant(name=unique("Łódź \"x\""))
    app.encrypt(made)
    dba.run("SELECT cmk.rotate_tenant(%s)", made.name)
    log = kms.log(made.key_uri)
    assert [entry["operation"] for entry in log] == [
        "GenerateDataKeyWithoutPlaintext", "Decrypt", "Decrypt", "Decrypt", "GenerateDataKeyWithoutPlaintext", "Decrypt",
    ]
    # On registration, another context than the tenant's was refused.
    refused = log.pop(2)
    assert refused["encryption_context"] == {**made.context, "tenant": "*"}
    assert refused["outcome"] == "InvalidCiphertextException"
    for entry in log:
        assert entry["encryption_context"] == made.context
        assert entry["access_key_id"] == AMBIENT_ACCESS_KEY_ID
        assert entry["outcome"] == "Success"


def test_keys_of_several_regions_are_used_side_by_side(app, kms, tenant):
    for region in ("eu-central-1", "us-east-1", "ap-southeast-2"):
        made = tenant(kms.key(region=region))
        assert f":{region}:" in made.key_uri
        assert app.decrypt(made, app.encrypt(made)) == CANARY


# Roles of the tenant's account


@pytest.fixture
def assumed(kms, tenant):
    """A tenant whose key only lets the tenant's own role in."""
    role = kms.role("external-7")
    arn = kms.key()
    kms.principals(arn, [role])
    return tenant(arn, role_arn=role, external_id="external-7")


def test_a_tenants_role_is_assumed_once_a_backend(app, kms, assumed):
    before = kms.total("AssumeRole")
    envelope = app.encrypt(assumed)
    for _ in range(3):
        assert app.decrypt(assumed, envelope) == CANARY
    assert kms.total("AssumeRole") == before + 1
    assert {entry["access_key_id"][:4] for entry in kms.log(assumed.key_uri)} == {"ASIA"}


def test_without_the_role_the_key_is_closed(dba, kms, assumed):
    with fails("55000", "key_access_denied"):
        dba.run("SELECT cmk.register_tenant(%s, %s)", unique("tenant"), assumed.key_uri)


def test_one_tenants_role_is_not_used_for_another(app, dba, kms, tenant, assumed):
    other = tenant()
    app.encrypt(assumed)
    app.encrypt(other)
    assert kms.log(other.key_uri)[-1]["access_key_id"] == AMBIENT_ACCESS_KEY_ID
    name, role = unique("tenant"), kms.role("external-8")
    with fails("55000", "key_access_denied", name):
        dba.run(
            "SELECT cmk.register_tenant(%s, %s, %s)", name, assumed.key_uri, options(role, "external-8")
        )


@pytest.mark.parametrize("external_id", ["external-8", "EXTERNAL-7"])
def test_a_wrong_external_id_is_refused_by_sts(dba, kms, external_id):
    name, role, arn = unique("tenant"), kms.role("external-7"), kms.key()
    with fails("55000", "key_access_denied", name) as caught:
        dba.run(
            "SELECT cmk.register_tenant(%s, %s, %s)", name, arn, options(role, external_id)
        )
    assert re.search(r" cause=assume_role kms_code=AccessDenied request_id=[-\w]{36}$", caught.value.diag.message_detail)
    assert not kms.log(arn), "KMS itself was never asked"


@pytest.mark.parametrize(
    "role_arn, external_id, reason",
    [
        ("arn:aws:iam::111122223333:role/acme", None, "external_id"),
        (None, "external-7", "external_id"),
        ("arn:aws:iam::111122223333:role/acme", "x", "external_id"),
        ("arn:aws:iam::111122223333:role/acme", "two words", "external_id"),
        ("arn:aws:iam::111122223333:role/acme", "x" * 1225, "external_id"),
        ("arn:aws:iam::111122223333:user/acme", "external-7", "role_arn"),
        ("arn:aws:sts::111122223333:assumed-role/acme/x", "external-7", "role_arn"),
        ("arn:aws:iam::111122223333:role/a\nb", "external-7", "role_arn"),
    ],
)
def test_a_role_comes_with_an_external_id_and_both_are_checked(dba, kms, role_arn, external_id, reason):
    with fails("22023", reason):
        dba.run(
            "SELECT cmk.register_tenant(%s, %s, %s)", unique("tenant"), kms.key(), options(role_arn, external_id)
        )
