"""Answers of KMS and STS that are too long, or never end, are refused soon and fill no memory."""

import re
import time
from pathlib import Path

import pytest

from support import CANARY, fails, fails_with, unique

KIB = 1024
LIMIT = 64 * KIB
ACCEPTED = 60 * KIB
# Of the 4.9 seconds that the attempts may take together.
SOON = 2.0

TOO_LONG = {
    "endless": ("endless", {}),
    "endless error": ("endless", {"status": 400}),
    "endless failure": ("endless", {"status": 500}),
    "1 GiB": ("endless", {"length": 1 << 30}),
    "1 GiB of an error": ("endless", {"length": 1 << 30, "status": 400}),
    "a byte too long": ("padded", {"bytes": LIMIT + 1}),
    "a byte too long, chunked": ("padded", {"bytes": LIMIT + 1, "chunked": True}),
    "8 MiB": ("padded", {"bytes": 8 << 20}),
    "8 MiB, chunked": ("padded", {"bytes": 8 << 20, "chunked": True}),
    "a long error": ("padded", {"bytes": LIMIT + 1, "status": 400, "code": "DisabledException"}),
    "a long denial": (
        "padded",
        {"bytes": 8 << 20, "status": 400, "code": "AccessDeniedException", "chunked": True},
    ),
    "a long failure": ("padded", {"bytes": 8 << 20, "status": 503}),
}


@pytest.fixture
def sealed(app, dba, tenant, kms):
    """A tenant with an assumed role, that role, an envelope, and nothing in any cache."""
    role, arn = kms.role("external-7"), kms.key()
    kms.principals(arn, [role])
    made = tenant(arn, role_arn=role, external_id="external-7")
    envelope = app.encrypt(made)
    dba.run("SELECT cmk.evict(%s)", made.name)
    return made, role, envelope


def memory(session):
    """The most that the backend ever had in memory, in bytes."""
    status = Path(f"/proc/{session.pid}/status").read_text()
    return int(re.search(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE)[1]) * KIB


def last(kms, operation):
    """The outcome of the latest such call."""
    return [entry for entry in kms.log() if entry["operation"] == operation][-1]["outcome"]


@pytest.mark.parametrize("operation", ["Decrypt", "AssumeRole"])
@pytest.mark.parametrize("answer", TOO_LONG)
def test_an_answer_that_is_too_long_is_refused_soon_and_the_next_call_works(
    dba, app, kms, sealed, operation, answer
):
    (tenant, role, envelope), (kind, options) = sealed, TOO_LONG[answer]
    arn = role if operation == "AssumeRole" else tenant.key_uri
    before, began = memory(app), time.monotonic()
    with kms.fault(kind, arn=arn, operation=operation, **options):
        with fails("58000", "kms_server_error", tenant):
            app.decrypt(tenant, envelope)
        assert time.monotonic() - began < SOON
    assert last(kms, operation) == f"fault:{kind}"
    assert memory(app) - before < 16 * KIB * KIB
    dba.run("SELECT cmk.evict(%s)", tenant.name)
    assert app.decrypt(tenant, envelope) == CANARY


def test_an_answer_in_the_smallest_pieces_costs_little_memory(server, app, kms, sealed):
    tenant, _, envelope = sealed
    with server.settings(kms_attempt_timeout="60s", kms_operation_timeout="60s"):
        for seconds in (1, 6):
            # The first cancel has a backtrace made, which takes memory of its own.
            before = memory(app)
            app.run(f"SET statement_timeout = '{seconds}s'")
            with kms.fault("trickle", arn=tenant.key_uri, millis=1, bytes=ACCEPTED):
                with fails_with("57014"):
                    app.decrypt(tenant, envelope)
    assert memory(app) - before < 16 * KIB * KIB


@pytest.mark.parametrize("answer", ["endless", "1 GiB", "8 MiB", "8 MiB, chunked"])
def test_nor_does_it_leave_anything_of_a_registration(dba, kms, answer):
    (kind, options), name, arn = TOO_LONG[answer], unique("tenant"), kms.key()
    dba.run("SELECT cmk.register_tenant(%s, %s)", unique("tenant"), kms.key())
    before = memory(dba)
    with kms.fault(kind, arn=arn, operation="GenerateDataKeyWithoutPlaintext", **options):
        with fails("58000", "kms_server_error", name):
            dba.run("SELECT cmk.register_tenant(%s, %s)", name, arn)
    assert memory(dba) - before < 16 * KIB * KIB
    assert not dba.all("SELECT FROM cmk.tenant WHERE tenant = %s", name)


@pytest.mark.parametrize("operation", ["Decrypt", "AssumeRole"])
@pytest.mark.parametrize("length", [ACCEPTED, LIMIT])
@pytest.mark.parametrize("chunked", [False, True], ids=["with length", "chunked"])
def test_an_answer_of_at_most_64_kib_is_taken(app, kms, sealed, operation, length, chunked):
    tenant, role, envelope = sealed
    arn = role if operation == "AssumeRole" else tenant.key_uri
    with kms.fault("padded", arn=arn, operation=operation, bytes=length, chunked=chunked):
        assert app.decrypt(tenant, envelope) == CANARY
    assert last(kms, operation) == "fault:padded"


def test_an_error_of_at_most_64_kib_says_what_it_says(app, kms, sealed):
    tenant, _, envelope = sealed
    error = {"status": 400, "code": "DisabledException"}
    with kms.fault("padded", arn=tenant.key_uri, bytes=ACCEPTED, **error):
        with fails("55000", "key_disabled", tenant):
            app.decrypt(tenant, envelope)
