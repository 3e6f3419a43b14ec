"""What a provoked error is played on."""

import contextlib

from support import CANARY, unique


class Stage:
    """What a provocation works with; `tenant` is the one that the error must name."""

    def __init__(self, server, kms, dba, app, tenant, database, session):
        self.server, self.kms, self.dba, self.app = server, kms, dba, app
        self.new_tenant, self.database, self.session = tenant, database, session
        self.tenant = None

    def use(self, *arguments, **named):
        self.tenant = self.new_tenant(*arguments, **named)
        return self.tenant

    def expect_name(self):
        """The name of a tenant whose registration is what fails."""
        self.tenant = unique("tenant")
        return self.tenant

    def manage(self, function):
        return self.dba.run(f"SELECT cmk.{function}(%s)", self.tenant.name)

    def cold_decrypt(self, provide=contextlib.nullcontext):
        """Decrypts with an empty cache, while `provide()` makes the way there fail."""
        envelope = self.app.encrypt(self.tenant, CANARY)
        self.manage("evict")
        with provide():
            self.app.decrypt(self.tenant, envelope)

    def cold_decrypt_under(self, kind, **options):
        with self.server.settings(kms_max_attempts=1, kms_attempt_timeout="200ms"):
            self.cold_decrypt(lambda: self.kms.fault(kind, arn=self.tenant.key_uri, **options))

    def state(self, state):
        self.use()
        self.kms.state(self.tenant.key_uri, state)
        self.app.encrypt(self.tenant)
