"""A tenant that is moved to another key, with values under each of its data keys."""

from dataclasses import dataclass

from psycopg.types.json import Jsonb

from support import CANARY, Tenant

ELSEWHERE = "444455556666"
ROUTES = {"kms": ("ReEncrypt", "Decrypt"), "us": ("Decrypt", "Encrypt", "Decrypt")}


@dataclass(frozen=True)
class Moving(Tenant):
    """Has three data keys for values, and an index key."""

    dba: object
    app: object
    envelopes: tuple

    KEYS = 4

    __str__ = Tenant.__str__

    @classmethod
    def make(cls, dba, app, tenant):
        envelopes = []
        for version in range(3):
            if version:
                dba.run("SELECT cmk.rotate_tenant(%s)", tenant.name)
            envelopes.append(app.encrypt(tenant))
        dba.run("SELECT cmk.rotate_index_key(%s)", tenant.name)
        return cls(tenant.name, tenant.key_uri, dba, app, tuple(envelopes))

    def begin(self, uri, by=None, **options):
        """(data_keys, rewrapped, remaining, problem)"""
        call = "SELECT * FROM cmk.rewrap_tenant(%s, %s, %s)"
        return (by or self.dba).row(call, self.name, uri, Jsonb(options))

    def confirm(self, by=None):
        return (by or self.dba).one("SELECT cmk.confirm_rewrap(%s)", self.name)

    def cancel(self):
        return self.dba.one("SELECT cmk.cancel_rewrap(%s)", self.name)

    def evict(self):
        self.dba.run("SELECT cmk.evict(%s)", self.name)

    def opens(self, by=None):
        """Whether every value opens, in the session of the application or another."""
        opened = [(by or self.app).decrypt(self, envelope) for envelope in self.envelopes]
        assert opened == [CANARY] * len(self.envelopes)
        return True

    def registry(self, dba=None):
        """All that the registry has of the tenant."""
        dba = dba or self.dba
        return [
            dba.all("SELECT * FROM cmk.tenant WHERE tenant = %s", self.name),
            dba.all("SELECT * FROM cmk.data_key WHERE tenant = %s ORDER BY version", self.name),
        ]

    def key(self, dba=None):
        """The key in force, and what wrapped each data key."""
        query = """SELECT t.key_uri, array_agg(DISTINCT k.wrapped_by), count(k.next_wrapped)
                     FROM cmk.tenant t JOIN cmk.data_key k USING (tenant) WHERE tenant = %s GROUP BY t.key_uri"""
        return (dba or self.dba).row(query, self.name)

    def progress(self, dba=None):
        query = "SELECT next_key_uri, rewrapped, remaining FROM cmk.tenants WHERE tenant = %s"
        return (dba or self.dba).row(query, self.name)
