"""Who may read the server's files reads no process's memory or environment through /proc."""

import os
import re
from pathlib import Path

import psycopg
import pytest

from server import until
from support import CANARY, fails_with, grant, unique

# PostgreSQL reads no more than this at once.
PIECE = 256 * 1024 * 1024
READ = "SELECT pg_read_binary_file(%s, %s, %s, true)"


def secrets_of(pid):
    """Files that hold a process's memory and environment."""
    return [f"/proc/{pid}/{at}{name}" for at in ("", f"task/{pid}/") for name in ("mem", "environ")]


class Reader:
    """A session of a role that may read the server's files and use the tenant."""

    def __init__(self, drill, session):
        self.drill, self.tenant, role = drill, drill.tenant(), unique("reader")
        dba = drill.dba
        for statement in (
            f"CREATE ROLE {role} LOGIN",
            f"GRANT pg_read_server_files TO {role}",
            f"GRANT SELECT ON customer TO {role}",
            "GRANT EXECUTE ON FUNCTION pg_read_binary_file(text, bigint, bigint, boolean),"
            f" pg_read_file(text) TO {role}",
        ):
            dba.run(statement)
        grant(dba, self.tenant, role)
        self.sealed = dba.one("SELECT sealed FROM customer WHERE tenant = %s", self.tenant.name)
        self.session = session(role, dbname="postgres", on=drill.server)
        self.other = session(role, dbname="postgres", on=drill.server)

    def warm_up(self, session):
        """The data key is in the session's own memory, if it ever is."""
        assert session.decrypt(self.tenant, self.sealed) == CANARY

    def is_denied(self, path):
        with fails_with("42501"):
            self.session.one(READ, path, 0, 16)
        with fails_with("42501"):
            self.session.one("SELECT pg_read_file(%s)", path)
        with fails_with("42501"):
            self.session.connection.execute(f"COPY pg_temp.line FROM '{path}'")
        return True

    def content(self, path, start, length):
        """What the session reads there; nothing if it can't."""
        try:
            return self.session.one(READ, path, start, length) or b""
        except (psycopg.errors.InsufficientPrivilege, psycopg.errors.IoError):
            return b""


@pytest.fixture
def reader(either_drill, session):
    reader = Reader(either_drill, session)
    reader.warm_up(reader.session)
    reader.warm_up(reader.other)
    reader.session.run("CREATE TEMP TABLE line (line text)")
    return reader


# What SQL may read


def test_a_session_that_has_a_data_key_reads_no_secret_of_itself(reader):
    pid = reader.session.pid
    for process in ("self", "thread-self", pid, f"self/task/{pid}", f"{pid}/task/{pid}"):
        for name in ("mem", "environ", "auxv"):
            assert reader.is_denied(f"/proc/{process}/{name}")


def test_nor_of_another_session(reader):
    for path in secrets_of(reader.other.pid):
        assert reader.is_denied(path)


def test_no_scan_of_the_sessions_own_memory_finds_the_data_key(reader):
    dek = reader.drill.dek(reader.tenant)
    maps = reader.session.one("SELECT pg_read_file('/proc/self/maps')")
    mappings = re.findall(r"^([0-9a-f]+)-([0-9a-f]+) r", maps, re.MULTILINE)
    assert len(mappings) > 20
    for first, last in mappings:
        start, end = int(first, 16), min(int(last, 16), 2**63)
        for at in range(start, end, PIECE):
            found = dek in reader.content("/proc/self/mem", at, min(PIECE + len(dek), end - at))
            assert not found, f"{first}-{last}"


def test_nor_does_one_of_the_files_of_memory_that_it_has_open(reader):
    dek = reader.drill.dek(reader.tenant)
    for opened in Path(f"/proc/{reader.session.pid}/fd").iterdir():
        if re.match("/(memfd|secretmem|dev/shm)", os.readlink(opened)):
            found = dek in reader.content(f"/proc/self/fd/{opened.name}", 0, PIECE)
            assert not found, os.readlink(opened)


def test_on_a_preloaded_server_nobody_reads_a_secret_of_any_process(drill, session):
    reader = Reader(drill, session)
    reader.session.run("CREATE TEMP TABLE line (line text)")
    assert drill.dba.decrypt(reader.tenant, reader.sealed) == CANARY
    processes = {drill.server.pid: "postmaster", **drill.server.children()}
    for title in ("checkpointer", "walwriter", "autovacuum launcher", "cmk_encrypt keyring"):
        assert any(title in of for of in processes.values()), (title, processes)
    for pid in processes:
        for path in secrets_of(pid):
            assert reader.is_denied(path), processes[pid]


# What the kernel says


def is_dumpable(pid):
    """The files of a process that can't be dumped belong to root."""
    return Path(f"/proc/{pid}/environ").stat().st_uid != 0


def test_no_process_of_a_preloaded_server_is_dumpable(drill, session):
    session(dbname="postgres", on=drill.server)
    processes = {drill.server.pid: "postmaster", **drill.server.children()}
    assert [title for pid, title in processes.items() if is_dumpable(pid)] == []


def test_a_session_that_loaded_the_library_is_not_dumpable(lazy_drill, kms, session):
    user = session(dbname="postgres", on=lazy_drill.server)
    user.run("LOAD 'cmk_encrypt'")
    assert not is_dumpable(user.pid)


# PostgreSQL's protection from the kernel's out-of-memory killer


@pytest.fixture(scope="module", params=["preloaded", "lazy"])
def adjusted(request, make_server):
    conf = {"shared_preload_libraries": "cmk_encrypt" if request.param == "preloaded" else ""}
    env = {"PG_OOM_ADJUST_FILE": "/proc/self/oom_score_adj", "PG_OOM_ADJUST_VALUE": "7"}
    server = make_server(conf, env)
    server.make_local_key("shared")
    server.execute("CREATE EXTENSION cmk_encrypt")
    server.execute("SELECT cmk.register_tenant('acme', 'local:shared')")
    server.execute("SELECT cmk.grant_access('acme', 'postgres')")
    yield server
    server.stop("immediate")


def score(pid):
    return int(Path(f"/proc/{pid}/oom_score_adj").read_text())


def test_a_server_whose_children_adjust_their_score_works(adjusted, session):
    user = session(dbname="postgres", on=adjusted)
    assert user.decrypt("acme", user.encrypt("acme")) == CANARY
    assert is_dumpable(user.pid) is False


def test_a_session_has_the_score_that_postgresql_promises(adjusted, session):
    user = session(dbname="postgres", on=adjusted)
    assert user.encrypt("acme")
    assert score(user.pid) == 7 != score(adjusted.pid)


def test_so_has_every_other_child(adjusted):
    until(adjusted.children, what="children")
    others = {title: score(pid) for pid, title in adjusted.children().items()}
    assert others and set(others.values()) == {7}, others
