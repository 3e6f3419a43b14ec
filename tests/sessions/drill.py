"""A server to have failures on, with tenants' values in a table."""

from support import CANARY, Session, Tenant, unique


class Drill:
    """Speaks to `server` as superuser, who may use every tenant."""

    def __init__(self, server, kms, preloaded):
        self.server, self.kms, self.preloaded = server, kms, preloaded
        self.reconnect()
        self.dba.run("CREATE EXTENSION cmk_encrypt")
        self.dba.run("CREATE TABLE customer (tenant text PRIMARY KEY, sealed bytea NOT NULL)")
        self.dba.run("SELECT cmk.grant_access('*', 'postgres')")

    def reconnect(self):
        """The first time, and whenever the server may have ended our session."""
        self.dba = Session(self.server.connect())
        self.server.sessions.append(self.dba)

    def tenant(self, key_uri=None):
        """A tenant with a value in the table. No process has anything about it."""
        made = Tenant(unique("tenant"), key_uri or self.kms.key())
        self.dba.run("SELECT cmk.register_tenant(%s, %s)", made.name, made.key_uri)
        with self.server.connect() as passing:
            passing.execute("INSERT INTO customer VALUES (%s, cmk_encrypt(%s, %b))", (made.name, made.name, CANARY))
        self.evict(made)
        return made

    def evict(self, tenant):
        self.dba.run("SELECT cmk.evict(%s)", tenant.name)

    def dek(self, tenant):
        """The raw data key, which the test gets from the tenant's KMS, not from the server."""
        wrapped = self.dba.one("SELECT wrapped FROM cmk.data_key WHERE tenant = %s", tenant.name)
        return self.kms.decrypt(tenant.key_uri, wrapped, tenant.context)

    def status(self, tenant, columns):
        return self.dba.row(f"SELECT {columns} FROM cmk.status WHERE tenant = %s", tenant.name)
