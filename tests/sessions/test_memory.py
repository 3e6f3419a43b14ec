"""A data key in a backend's memory: once, in locked pages, and gone when it is no longer needed."""

import base64
import re
from pathlib import Path

import pytest

from server import until

WRITABLE = re.compile(r"^([0-9a-f]+)-([0-9a-f]+) rw")


def find(pid, needles):
    """Addresses in the private writable memory of a process where any of `needles` begins."""
    found = []
    with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            match = WRITABLE.match(line)
            if not match or "rw-s" in line or "[v" in line:
                continue
            start, end = (int(address, 16) for address in match.groups())
            memory.seek(start)
            content = memory.read(end - start)
            for needle in needles:
                found += [start + hit.start() for hit in re.finditer(re.escape(needle), content)]
    return found


def forms(dek):
    """The raw key, each half (an expanded key begins with both), and as KMS's answer spells it."""
    return [dek[:16], dek[16:], base64.b64encode(dek)]


def flags_at(pid, address):
    """The kernel's flags of the mapping that holds `address`: lo = locked, dd = not dumped, dc = not forked."""
    inside = False
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        bounds = re.match(r"^([0-9a-f]+)-([0-9a-f]+) ", line)
        if bounds:
            start, end = (int(bound, 16) for bound in bounds.groups())
            inside = start <= address < end
        elif inside and line.startswith("VmFlags:"):
            return set(line.split()[1:])
    raise AssertionError(f"no mapping holds {address:#x}")


@pytest.fixture
def secret(tenant, kms, dba):
    """A tenant and its raw data key, which the test gets from the tenant's KMS, not from the backend."""
    made = tenant()
    wrapped = dba.one("SELECT wrapped FROM cmk.data_key WHERE tenant = %s", made.name)
    return made, kms.decrypt(made.key_uri, wrapped, made.context)


def test_a_cached_data_key_lies_in_locked_undumpable_pages_only(app, secret):
    tenant, dek = secret
    app.encrypt(tenant)
    found = find(app.pid, forms(dek))
    assert found, "the search doesn't find the key that the backend must hold"
    for address in found:
        assert {"lo", "dd", "dc"} <= flags_at(app.pid, address), f"{address:#x}"


def test_an_evicted_data_key_leaves_nothing_in_memory(app, dba, secret):
    tenant, dek = secret
    envelope = app.encrypt(tenant)
    assert app.decrypt(tenant, envelope)
    dba.run("SELECT cmk.suspend_tenant(%s)", tenant.name)
    until(lambda: not app.all("SELECT FROM pg_sleep(0) WHERE cmk_try_decrypt(%s, %b, '', '{tenant_suspended}') IS NOT NULL",
                              tenant.name, envelope))
    assert find(app.pid, forms(dek)) == []
