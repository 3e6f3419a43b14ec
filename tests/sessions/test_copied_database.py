"""CREATE DATABASE ... TEMPLATE copies a registry; nothing is sealed or opened in the copy until a
superuser adopts it."""

import subprocess
import time

import pytest

from server import until
from support import CANARY, Session, fails, fails_with, grant, unique
from watched import Watched, running


class Copy:
    """Database `app` with a tenant, a pending one and a value, and its copy `clone`."""

    def __init__(self, drill, session):
        self.drill, self._session = drill, session
        self.app, self.clone, self.user = unique("app"), unique("clone"), unique("user")
        self.key = drill.kms.key()
        self.run(f"CREATE DATABASE {self.app}")
        self.run(f"CREATE ROLE {self.user} LOGIN")
        with drill.server.connect(self.app) as connection:
            dba = Session(connection)
            dba.run("CREATE EXTENSION cmk_encrypt")
            dba.run("SELECT cmk.register_tenant('acme', %s)", self.key)
            dba.run("SELECT cmk.register_tenant('later', %s, activate => false)", self.key)
            for role in (self.user, "postgres"):
                grant(dba, "acme", role)
        with drill.server.connect(self.app, self.user) as connection:
            self.sealed = Session(connection).encrypt("acme")
        self.run(f"CREATE DATABASE {self.clone} TEMPLATE {self.app}")

    def run(self, sql):
        self.drill.dba.run(sql)

    def connect(self, dbname, role="postgres"):
        return self._session(role, dbname=dbname, on=self.drill.server)

    def drop(self, *names):
        for name in names:
            self.run(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


@pytest.fixture
def copied(either_drill, session):
    copied = Copy(either_drill, session)
    yield copied
    copied.drop(copied.clone, copied.app)


@pytest.fixture
def clone(copied):
    """A superuser in the copy."""
    return copied.connect(copied.clone)


@pytest.fixture
def user(copied):
    """A granted role in the copy."""
    return copied.connect(copied.clone, copied.user)


def is_refused(user, sealed):
    with fails("55000", "registry_copied"):
        user.decrypt("acme", sealed)
    return True


def works(dba, user, sealed, rotated=2):
    """Everything that uses keys does."""
    assert user.decrypt("acme", sealed) == user.decrypt("acme", user.encrypt("acme")) == CANARY
    assert dba.one("SELECT cmk.rotate_tenant('acme')") == rotated
    assert user.decrypt("acme", user.encrypt("acme")) == CANARY
    assert dba.one("SELECT cmk.warm('acme')") == rotated
    return True


def problems(dba):
    return {problem for problem, in dba.all("SELECT problem FROM cmk.check()")}


# In the copy


USES = {
    "rotate": "SELECT cmk.rotate_tenant('acme')",
    "activate": "SELECT cmk.activate_tenant('later')",
    "register": "SELECT cmk.register_tenant('new', '{key}')",
    "warm": "SELECT cmk.warm('acme')",
    "encrypt": "SELECT cmk_encrypt('acme', 'x')",
    "decrypt": "SELECT cmk_decrypt('acme', '\\x{sealed}')",
    "try to decrypt": "SELECT cmk_try_decrypt('acme', '\\x{sealed}')",
}


@pytest.mark.parametrize("use", USES.values(), ids=list(USES))
def test_in_a_copied_database_nothing_that_uses_keys_works_and_kms_is_not_asked(copied, clone, use):
    asked = copied.drill.kms.counters()["total"]
    with fails("55000", "registry_copied"):
        clone.run(use.format(key=copied.key, sealed=copied.sealed.hex()))
    assert copied.drill.kms.counters()["total"] == asked


def test_a_role_that_the_original_had_granted_is_refused_there_too(copied, user):
    assert is_refused(user, copied.sealed)


def test_the_brakes_work_in_a_copied_database(copied, clone, user):
    clone.run("SELECT cmk.evict('acme')")
    clone.run("SELECT cmk.evict_all()")
    clone.run("SELECT cmk.suspend_tenant('acme')")
    assert clone.one("SELECT state FROM cmk.tenants WHERE tenant = 'acme'") == "suspended"
    clone.run("SELECT cmk.revoke_access('acme', %s)", copied.user)
    assert clone.one("SELECT count(*) FROM cmk.access") == 1, "that of postgres"
    clone.run("SELECT cmk.adopt_registry()")
    with fails("42501", "no_grant", "acme"):
        user.decrypt("acme", copied.sealed)
    grant(clone, "acme", copied.user)
    with fails("55000", "tenant_suspended", "acme"):
        user.decrypt("acme", copied.sealed)


def test_check_tells_of_a_copy_and_of_no_original(copied, clone):
    assert problems(clone) == {"registry_copied"}
    fix, = clone.all("SELECT fix FROM cmk.check()")
    assert "cmk.adopt_registry()" in str(fix)
    assert problems(copied.connect(copied.app)) == set()
    clone.run("SELECT cmk.adopt_registry()")
    assert problems(clone) == set()


# Adoption


MORE_RIGHTS = {
    "executor": "",
    "member": "GRANT postgres TO {user}",
    "owner": "ALTER DATABASE {clone} OWNER TO {user}",
}


@pytest.mark.parametrize("more", MORE_RIGHTS.values(), ids=list(MORE_RIGHTS))
def test_only_a_superuser_adopts(copied, clone, user, more):
    clone.run(f"GRANT EXECUTE ON FUNCTION cmk.adopt_registry() TO {copied.user}")
    if more:
        clone.run(more.format(user=copied.user, clone=copied.clone))
    with fails_with("42501"):
        user.run("SELECT cmk.adopt_registry()")
    assert is_refused(user, copied.sealed)


def test_an_adoption_holds_from_commit_on_in_every_session(copied, clone, user):
    other = copied.connect(copied.clone)
    assert is_refused(user, copied.sealed), "so the session has read the registry"
    with fails("55000", "registry_copied"):
        other.run("SELECT cmk.rotate_tenant('acme')")
    with clone.connection.transaction():
        clone.run("SELECT cmk.adopt_registry()")
        assert is_refused(user, copied.sealed), "not before commit"
    assert works(other, user, copied.sealed)
    assert works(clone, copied.connect(copied.clone, copied.user), copied.sealed, rotated=3)
    assert clone.one("SELECT cmk.activate_tenant('later')") == "active"


@pytest.mark.parametrize("undo", ["ROLLBACK", "ROLLBACK TO before; COMMIT"])
def test_an_adoption_that_is_rolled_back_adopts_nothing(copied, clone, user, undo):
    clone.run("BEGIN")
    clone.run("SAVEPOINT before")
    clone.run("SELECT cmk.adopt_registry()")
    for statement in undo.split("; "):
        clone.run(statement)
    assert is_refused(user, copied.sealed)
    assert problems(clone) == {"registry_copied"}
    with fails("55000", "registry_copied"):
        clone.run("SELECT cmk.rotate_tenant('acme')")


def test_a_copy_of_an_adopted_copy_is_a_copy_again(copied, clone, user):
    clone.run("SELECT cmk.adopt_registry()")
    assert works(clone, user, copied.sealed)
    for session in (clone, user):
        session.close()
    name = unique("clone")
    copied.run(f"CREATE DATABASE {name} TEMPLATE {copied.clone}")
    assert is_refused(copied.connect(name, copied.user), copied.sealed)
    copied.drop(name)


# The original, and what is no copy


def test_the_original_goes_on_untouched(copied, clone):
    dba, user = copied.connect(copied.app), copied.connect(copied.app, copied.user)
    assert works(dba, user, copied.sealed)
    asked = copied.drill.kms.calls(copied.key)
    clone.run("SELECT cmk.adopt_registry()")
    clone.run("SELECT cmk.suspend_tenant('acme')")
    assert user.decrypt("acme", copied.sealed) == CANARY
    assert copied.drill.kms.calls(copied.key) == asked, "its sessions are as warm as before"
    assert works(dba, user, copied.sealed, rotated=3)


def test_a_renamed_database_needs_no_adoption(copied):
    name = unique("renamed")
    copied.run(f"ALTER DATABASE {copied.app} RENAME TO {name}")
    dba, user = copied.connect(name), copied.connect(name, copied.user)
    assert problems(dba) == set() and works(dba, user, copied.sealed)
    copied.drop(name)


def test_a_dump_that_is_restored_elsewhere_needs_no_adoption(copied):
    server, name = copied.drill.server, unique("restored")
    host = [f"--host={server.socket}", "--username=postgres"]
    dump = [server.program("pg_dump"), *host, copied.app]
    dumped = subprocess.run(dump, check=True, stdout=subprocess.PIPE).stdout
    copied.run(f"CREATE DATABASE {name}")
    restore = [server.program("psql"), *host, "-qX", "-v", "ON_ERROR_STOP=1", "-d", name]
    subprocess.run(restore, input=dumped, check=True, stdout=subprocess.DEVNULL)
    dba, user = copied.connect(name), copied.connect(name, copied.user)
    assert problems(dba) == set() and works(dba, user, copied.sealed)
    copied.drop(name)


# The monitor


def test_the_monitor_of_a_copy_asks_nothing_until_it_is_adopted(make_server, kms):
    with running(make_server, monitor_databases="clone") as server:
        server.execute("CREATE DATABASE app")
        original = Watched(server, kms, "app")
        tenant = original.tenant()
        original.dba.close()
        server.execute("CREATE DATABASE clone TEMPLATE app")
        watched = Watched(server, kms, "clone", create=False)
        asked = kms.counters()["total"]

        def about():
            lines = server.log.read_text().splitlines()
            return [line for line in lines if "database=clone" in line and "adopt" in line]

        until(about, 20, "a line in the log")
        time.sleep(3)  # three rounds
        assert kms.counters()["total"] == asked
        assert len(about()) == 1, "and says so once"
        watched.dba.run("SELECT cmk.adopt_registry()")
        watched.checks(tenant, 1)
