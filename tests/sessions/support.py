"""What the tests share: sessions, tenants, and what a failure must look like."""

import contextlib
import re
import secrets
import threading
from concurrent.futures import Future
from dataclasses import dataclass

import psycopg
import pytest

from server import until

# What every test encrypts unless it says otherwise, so that the search for plaintext in test_security.py
# covers whatever ran before it.
CANARY = f"canary-{secrets.token_hex(12)}".encode()

OVERHEAD = 58
DETAIL = re.compile(r'reason=(?P<reason>[a-z_]+)(?: tenant=(?P<tenant>"(?:[^"\\]|\\.)*"|\S+))?(?: |$)')


def unique(prefix):
    return f"{prefix}_{secrets.token_hex(4)}"


@contextlib.contextmanager
def fails(sqlstate, reason, tenant=None):
    """The block raises exactly this error of ours: SQLSTATE, reason, the tenant if given, and a hint."""
    with pytest.raises(psycopg.Error) as caught:
        yield caught
    check_failure(caught.value, sqlstate, reason, tenant)


def check_failure(error, sqlstate, reason, tenant=None):
    diag = error.diag
    detail = DETAIL.match(diag.message_detail or "")
    seen = (diag.sqlstate, detail and detail["reason"])
    assert seen == (sqlstate, reason), f"{error!r} DETAIL {diag.message_detail}"
    if tenant is not None:
        assert detail["tenant"] == str(tenant), diag.message_detail
    assert diag.message_hint and diag.message_hint.endswith("."), diag.message_hint
    assert "backtrace" not in str(error) and ".rs:" not in str(error), str(error)
    return diag


@contextlib.contextmanager
def fails_with(sqlstate):
    """The block raises an error of PostgreSQL itself, which has no reason."""
    with pytest.raises(psycopg.Error) as caught:
        yield caught
    assert caught.value.sqlstate == sqlstate, repr(caught.value)


@dataclass(frozen=True)
class Tenant:
    name: str
    key_uri: str

    def __str__(self):
        return self.name

    @property
    def context(self):
        return {"cmk_encrypt": "v1", "purpose": "values", "tenant": self.name}


class Session:
    """One connection, and so one backend with a cache of its own."""

    def __init__(self, connection):
        self.connection = connection
        self.pid = connection.info.backend_pid
        self.role = connection.info.user

    def run(self, sql, *params):
        return self.connection.execute(sql, params or None, binary=True)

    def all(self, sql, *params):
        return self.run(sql, *params).fetchall()

    def row(self, sql, *params):
        rows = self.all(sql, *params)
        assert len(rows) == 1, f"{len(rows)} rows"
        return rows[0]

    def one(self, sql, *params):
        row = self.row(sql, *params)
        assert len(row) == 1, f"{len(row)} columns"
        return row[0]

    def encrypt(self, tenant, value=CANARY, aad=b""):
        return self.one("SELECT cmk_encrypt(%s, %b, %b)", str(tenant), value, aad)

    def decrypt(self, tenant, envelope, aad=b""):
        return self.one("SELECT cmk_decrypt(%s, %b, %b)", str(tenant), envelope, aad)

    def start(self, sql, *params):
        """Runs one statement in a thread; a Future of its rows or its error."""
        future = Future()

        def work():
            try:
                future.set_result(self.all(sql, *params))
            except BaseException as error:
                future.set_exception(error)

        threading.Thread(target=work, daemon=True).start()
        return future

    def usable(self):
        """Out of any failed transaction, the session still answers."""
        self.connection.rollback()
        return self.one("SELECT 1") == 1

    def close(self):
        self.connection.close()


def grant(dba, tenant, role, **arguments):
    names = "".join(f", {argument} => %s" for argument in arguments)
    dba.run(f"SELECT cmk.grant_access(%s, %s{names})", str(tenant), role, *arguments.values())


def wait_for_lock(observer, pid):
    """Returns once backend `pid` waits for a lock."""
    until(
        lambda: observer.one(
            "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE pid = %s AND wait_event_type = 'Lock')", pid
        ),
        what=f"backend {pid} waiting for a lock",
    )


def flip(data, bit):
    """`data` with one bit inverted, counted from the first byte's lowest."""
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)
