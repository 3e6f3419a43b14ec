"""Every error: SQLSTATE, DETAIL and HINT as crates/error/src/reason.rs has them, and a session that lives on."""

import re

import pytest

from provocations import OUT_OF_REACH
from provocations_search import ALL
from server import ROOT
from stage import Stage
from support import fails

# The rows of the design's table of conditions, each by the reasons that stand for it.
CONDITIONS = {
    "55000": {"key_access_denied", "key_disabled", "key_pending_deletion", "key_not_found", "tenant_suspended",
              "tenant_pending", "tenant_shredded"},
    "42501": {"no_grant"},
    "42704": {"unknown_tenant"},
    "58000": {"kms_unreachable", "kms_timeout", "kms_server_error"},
    "53000": {"kms_throttled"},
    "F0000": {"credentials", "endpoint", "key_unusable", "kms_rejected"},
    "39000": {"not_authentic", "unknown_data_key", "wrapped_key_rejected", "commitment_mismatch"},
    "22P03": {"not_an_envelope", "unknown_suite"},
    "22023": {"key_uri", "tenant_name", "too_large"},
    "25006": {"read_only"},
}


@pytest.mark.parametrize("provocation", ALL.values(), ids=list(ALL))
def test_each_reason_has_its_sqlstate_detail_and_hint(
    provocation, server, kms, dba, app, tenant, database, session
):
    stage = Stage(server, kms, dba, app, tenant, database, session)
    with fails(provocation.sqlstate, provocation.reason) as caught:
        provocation.run(stage)
    detail = caught.value.diag.message_detail
    if provocation.names_tenant:
        assert f"reason={provocation.reason} tenant={stage.tenant}" in detail
    assert caught.value.diag.severity_nonlocalized == "ERROR"
    assert app.usable() and dba.usable()


def test_every_reason_of_the_extension_is_provoked_or_said_to_be_out_of_reach():
    source = (ROOT / "crates" / "error" / "src" / "reason.rs").read_text()
    table = re.search(r"^reasons! \{(.*?)^\}", source, re.DOTALL | re.MULTILINE)
    names = re.findall(r'^    [A-Z]\w+ = "(\w+)"', table[1], re.MULTILINE)
    assert len(names) > 40
    assert sorted(names) == sorted({**ALL, **OUT_OF_REACH})


def test_every_condition_of_the_design_has_its_sqlstate():
    for sqlstate, reasons in CONDITIONS.items():
        assert {ALL[reason].sqlstate for reason in reasons} == {sqlstate}


def test_no_error_makes_a_connection_pool_drop_the_connection():
    assert not [p.reason for p in ALL.values() if p.sqlstate[:2] in ("08", "0A") or p.sqlstate[:4] == "57P0"]
