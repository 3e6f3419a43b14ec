"""What tests of re-encryption share: tables of envelopes, and what a run left."""

import re

from protected import Table
from support import unique

PLAIN = "value-"


class Envelopes(Table):
    """A table of the session's role with a column `c` of envelopes: of cmk_encrypt(), bound to the row's id."""

    AAD = "id::text::bytea"

    def call(self, **arguments):
        """The statement, and its arguments."""
        named = {"tenant_column": "tenant_id", "aad": self.AAD, "pause": 0, **arguments}
        named = {name: value for name, value in named.items() if value is not None}
        parts = "".join(f", {name} => %s" for name in named)
        return f"CALL cmk.reencrypt(%s, 'c'{parts})", self.name, *named.values()

    def reencrypt(self, **arguments):
        self.session.run(*self.call(**arguments))

    def fill(self, tenants, first=1, last=100):
        """Rows whose tenants take turns."""
        self.session.run(
            f"INSERT INTO {self} (id, tenant_id, c)"
            " SELECT n, t, cmk_encrypt(t, %s || n, n::text::bytea) FROM generate_series(%s::int, %s::int) n,"
            " LATERAL (SELECT (%s::text[])[1 + n %% %s]) tenants (t)",
            PLAIN, first, last, [str(tenant) for tenant in tenants], len(tenants),
        )

    def opened(self):
        """{id: plaintext}"""
        return dict(self.session.all(
            f"SELECT id, cmk_decrypt_text(tenant_id, c, {self.AAD}) FROM {self} WHERE c IS NOT NULL ORDER BY id"))

    def usage(self):
        """{(tenant, version): rows}; {state: rows} of what no data key seals."""
        rows = self.session.all("SELECT tenant, version, state, dek_id, rows FROM cmk.data_key_usage(%s, 'c')", self.name)
        return {state if dek_id is None else (tenant, version): number for tenant, version, state, dek_id, number in rows}

    def progress(self, columns="state, rows_done, rows_left, failed_rows"):
        return self.session.row(f'SELECT {columns} FROM cmk.reencrypt_progress WHERE "table" = %s::regclass', self.name)

    def failures(self):
        return sorted(
            ((key, reason) for key, reason in self.session.all(
                'SELECT key, reason FROM cmk.reencrypt_failures WHERE "table" = %s::regclass', self.name)),
            key=str,
        )


def make_envelopes(session, tenants, rows=100, key="PRIMARY KEY", more=""):
    table = Envelopes(session, unique("sealed"))
    session.run(f"CREATE TABLE {table} (id int {key}, tenant_id text NOT NULL, c bytea{more})")
    table.fill(tenants, last=rows)
    return table


def plain(rows=100):
    return {n: f"{PLAIN}{n}" for n in range(1, rows + 1)}


def rotate(dba, *tenants):
    """Each tenant gets a newer data key; its version."""
    return [dba.one("SELECT cmk.rotate_tenant(%s)", str(tenant)) for tenant in tenants]


def counted(heard):
    """How many values each run says that it re-encrypted."""
    found = (re.search(r"(\d+) values re-encrypted$", message) for severity, message, _, _ in heard if severity == "NOTICE")
    return [int(match[1]) for match in found if match]
