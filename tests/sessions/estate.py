"""A server in an AWS environment of its own, which a test chooses."""

import contextlib
import os
import shutil
import tempfile
from pathlib import Path

import psycopg

from crowd import READ
from drill import Drill
from server import ENVIRONMENT
from support import CANARY, Session, check_failure

REGION = "eu-central-1"
KEYS = {"AWS_ACCESS_KEY_ID": "AKIAFAKEESTATE000000", "AWS_SECRET_ACCESS_KEY": "not-a-secret"}


class Estate(Drill):
    """A drill whose server can be given another environment, and files that it may name."""

    def __init__(self, make_server, kms, preloaded=False, **conf):
        # Where the server's OS user may read it.
        self.dir = Path(tempfile.mkdtemp(prefix="cmk_encrypt_estate."))
        self.dir.chmod(0o755)
        libraries = "cmk_encrypt" if preloaded else ""
        super().__init__(make_server({"shared_preload_libraries": libraries, **conf}), kms, preloaded)
        self.sealed = self.tenant()

    def file(self, name, content):
        """A file that the server may read; its path."""
        path = self.dir / name
        path.write_text(content)
        os.chown(path, *self.server.owner())
        return str(path)

    def settings(self, **values):
        return self.server.settings(**values)

    def become(self, **env):
        """Starts anew in this environment; None leaves a variable out."""
        self.server.sessions.remove(self.dba)
        self.dba.close()
        env = {**ENVIRONMENT, "AWS_ACCESS_KEY_ID": None, "AWS_SECRET_ACCESS_KEY": None, **env}
        text = "".join(f"{name}={value}\n" for name, value in env.items() if value is not None)
        (self.server.dir / "env").write_text(text)
        self.server.restart()
        self.reconnect()

    @contextlib.contextmanager
    def session(self):
        """A backend that has asked nothing yet."""
        session = Session(self.server.connect())
        self.server.sessions.append(session)
        try:
            yield session
        finally:
            self.server.sessions.remove(session)
            session.close()

    def reads(self, tenant=None):
        """Cold, in a new backend; then who KMS took it for."""
        tenant = tenant or self.sealed
        self.evict(tenant)
        with self.session() as session:
            assert session.one(READ, tenant.name) == CANARY
        return self.kms.log(tenant.key_uri)[-1]["access_key_id"]

    def refused(self, sqlstate, reason, tenant=None, with_hint=None):
        """The fields of DETAIL beside reason and tenant, of a cold read in a new backend."""
        tenant = tenant or self.sealed
        self.evict(tenant)
        with self.session() as session:
            return failure(session, tenant, sqlstate, reason, with_hint)

    def close(self):
        self.server.stop("immediate")
        shutil.rmtree(self.dir)


def failure(session, tenant, sqlstate, reason, with_hint=None):
    """What reading fails with: the fields of DETAIL beside reason and tenant. The session goes on."""
    try:
        session.one(READ, tenant.name)
    except psycopg.Error as error:
        diag = check_failure(error, sqlstate, reason, tenant)
        if with_hint:
            assert with_hint in diag.message_hint, diag.message_hint
        assert "foreign text" not in str(error) and "not-a-" not in str(error), str(error)
        assert session.usable()
        return dict(field.split("=", 1) for field in diag.message_detail.split()[2:])
    raise AssertionError("it was read")
