"""A server that takes its AWS identity from a shared credentials file, and its tenants."""

import contextlib
import os
import shutil
import tempfile
import time
from pathlib import Path

import psycopg
import pytest
from psycopg.types.json import Jsonb

from crowd import READ
from drill import Drill
from server import until
from support import CANARY, Tenant, check_failure, fails, unique

OLD = "AKIAFAKEOLD000000000"
NEW = "AKIAFAKENEW000000000"
STRANGER = "AKIAFAKESTRANGER0000"
EXTERNAL_ID = "external-9"

FAILURE_TTL = 0.3
# How long a client is new, in seconds: as long, the process makes no other one.
NEW_FOR = 2.0


class CredentialsFile:
    def __init__(self):
        # Where the server's OS user may read it.
        self.dir = Path(tempfile.mkdtemp(prefix="cmk_encrypt_identity."))
        self.dir.chmod(0o755)
        self.path = self.dir / "credentials"
        self.owner = os.getuid(), os.getgid()
        self.env = {
            "AWS_ACCESS_KEY_ID": None,
            "AWS_SECRET_ACCESS_KEY": None,
            "AWS_SHARED_CREDENTIALS_FILE": str(self.path),
        }

    def become(self, access_key_id):
        """Puts another file in place at once; None is an empty one."""
        unfinished = self.path.with_suffix(".unfinished")
        unfinished.touch(mode=0o600)
        if access_key_id:
            unfinished.write_text(
                f"[default]\naws_access_key_id = {access_key_id}\n"
                "aws_secret_access_key = not-a-secret\n"
            )
        os.chown(unfinished, *self.owner)
        unfinished.replace(self.path)

    def close(self):
        shutil.rmtree(self.dir)


class Site(Drill):
    """A drill whose server is OLD to AWS until it becomes somebody else."""

    def __init__(self, make_server, kms, preloaded, shim):
        self.credentials = CredentialsFile()
        conf = {
            "shared_preload_libraries": "cmk_encrypt" if preloaded else "",
            "max_worker_processes": "16",
            "cmk_encrypt.failure_ttl": f"{FAILURE_TTL}s",
        }
        server = make_server(conf, {**shim.env, **self.credentials.env})
        self.credentials.owner = server.owner()
        self.become(OLD)
        super().__init__(server, kms, preloaded)

    def become(self, access_key_id):
        self.credentials.become(access_key_id)

    def renew(self):
        """For the next test: OLD again, and an administrator's session without a past."""
        self.become(OLD)
        self.server.sessions.remove(self.dba)
        self.dba.close()
        self.reconnect()

    def close(self):
        self.server.stop("immediate")
        self.credentials.close()

    def assuming(self, allow=None):
        """A tenant whose key lets in one role alone, and that role, which `allow` may assume."""
        role, arn = self.kms.role(EXTERNAL_ID, allow), self.kms.key()
        self.kms.principals(arn, [role])
        made = Tenant(unique("tenant"), arn)
        self.dba.run(
            "SELECT cmk.register_tenant(%s, %s, %s)",
            made.name, made.key_uri, Jsonb({"role_arn": role, "external_id": EXTERNAL_ID}),
        )
        with self.server.connect() as passing:
            passing.execute(
                "INSERT INTO customer VALUES (%s, cmk_encrypt(%s, %b))",
                (made.name, made.name, CANARY),
            )
        self.evict(made)
        return made, role

    def state(self, tenant):
        return self.dba.one("SELECT key_state FROM cmk.status WHERE tenant = %s", tenant.name)

    def never_revoked(self, tenant):
        """Nobody has taken the tenant's key for withdrawn so far."""
        lines = self.server.log.read_text().splitlines()
        # A single request may be refused, and made again with newer credentials.
        lines = [line for line in lines if "cmk_encrypt kms={" not in line]
        told = [line for line in lines if "key_access_denied" in line and tenant.name in line]
        assert not told, told
        assert self.state(tenant) != "revoked"

    def refused(self, tenant, since):
        """The calls for the tenant's key that KMS refused, but for the first `since` calls."""
        log = self.kms.log(tenant.key_uri)[since:]
        return [entry for entry in log if entry["outcome"] != "Success"]


def grow_old():
    """Lets time pass until no client is new any more."""
    time.sleep(NEW_FOR * 1.1)


def soon(action, tenant, within=5.0):
    """What `action` returns. Until then nothing but `credentials` is in its way."""

    def attempt():
        try:
            return [action()]
        except psycopg.Error as error:
            check_failure(error, "F0000", "credentials", tenant)
            return []

    return until(attempt, within, f"an end of the wrong credentials for {tenant}")[0]


def reads_on(session, tenant, within=5.0):
    assert soon(lambda: session.one(READ, tenant.name), tenant, within) == CANARY


def all_read_on(site, users, tenant):
    """Each of them, after an eviction that makes it ask KMS."""
    for user in users:
        site.evict(tenant)
        reads_on(user, tenant)


def all_are_denied(users, tenant):
    """The error of the first, which asks KMS; the others are told."""
    # The value is under the first data key, the warm sessions have the second.
    with fails("55000", "key_access_denied", tenant) as caught:
        users[0].one(READ, tenant.name)
    for user in users:
        with fails("55000", "key_access_denied", tenant):
            user.encrypt(tenant)
    return caught.value


# Fixtures


@pytest.fixture(scope="module")
def sites(make_server, kms_process, shim):
    ways = ("preloaded", "lazy")
    made = {way: Site(make_server, kms_process, way == "preloaded", shim) for way in ways}
    yield made
    for site in made.values():
        site.close()


@pytest.fixture(params=["preloaded", "lazy"])
def site(request, sites, kms):
    """One, then the other: the library preloaded, and loaded by the first call."""
    sites[request.param].renew()
    return sites[request.param]


@pytest.fixture
def preloaded(sites, kms):
    sites["preloaded"].renew()
    return sites["preloaded"]


@pytest.fixture
def connect(session):
    """Opens a session that has asked nothing yet."""
    return lambda site: session(dbname="postgres", on=site.server)


@pytest.fixture
def client_as(connect):
    """Opens a session that has asked KMS as this access key id, and so has a client that is it."""

    def make(site, access_key_id=OLD):
        site.become(access_key_id)
        own, user = site.tenant(), connect(site)
        assert user.one(READ, own.name) == CANARY
        assert site.kms.log(own.key_uri)[-1]["access_key_id"] == access_key_id
        return user

    return make


@pytest.fixture
def warmed(site, client_as, connect):
    """Warm sessions of a tenant, which all read again in the end. The first is the one to ask KMS."""

    @contextlib.contextmanager
    def make(tenant):
        site.dba.run("SELECT cmk.rotate_tenant(%s)", tenant.name)
        users = [client_as(site)]
        # Without shared memory each session finds out for itself.
        if site.preloaded:
            users += [client_as(site), connect(site)]
        with site.server.settings(failure_ttl="30s"):
            for user in users:
                user.encrypt(tenant)
            grow_old()
            yield users
            site.evict(tenant)
            for user in users:
                assert user.one(READ, tenant.name) == CANARY

    return make
