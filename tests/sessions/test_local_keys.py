"""A key file that is not private, whole and in its place is not used."""

import os

import pytest

from support import CANARY, fails, unique


def missing(path):
    path.rename(path.with_suffix(".away"))


def symlink(path):
    real = path.rename(path.with_suffix(".real"))
    path.symlink_to(real)


def directory(path):
    path.unlink()
    path.mkdir()


def fifo(path):
    path.unlink()
    os.mkfifo(path)


SPOILED_FILES = {
    "missing": (missing, "55000", "key_not_found"),
    "31 bytes": (lambda path: os.truncate(path, 31), "F0000", "local_key_file"),
    "33 bytes": (lambda path: os.truncate(path, 33), "F0000", "local_key_file"),
    "empty": (lambda path: os.truncate(path, 0), "F0000", "local_key_file"),
    "world-readable": (lambda path: path.chmod(0o604), "F0000", "local_key_file"),
    "group-readable": (lambda path: path.chmod(0o640), "F0000", "local_key_file"),
    "executable": (lambda path: path.chmod(0o700), "F0000", "local_key_file"),
    "symbolic link": (symlink, "F0000", "local_key_file"),
    "directory": (directory, "F0000", "local_key_file"),
    "pipe": (fifo, "F0000", "local_key_file"),
}


@pytest.mark.parametrize("spoil, sqlstate, reason", SPOILED_FILES.values(), ids=list(SPOILED_FILES))
def test_a_local_key_file_that_is_not_private_and_whole_is_not_used(
    server, dba, app, tenant, spoil, sqlstate, reason
):
    name = unique("key")
    path = server.make_local_key(name)
    made = tenant(f"local:{name}")
    envelope = app.encrypt(made)
    dba.run("SELECT cmk.evict(%s)", made.name)
    spoil(path)
    with fails(sqlstate, reason, made):
        app.decrypt(made, envelope)
    with fails(sqlstate, reason):
        dba.run("SELECT cmk.register_tenant(%s, %s)", unique("tenant"), made.key_uri)
    assert app.usable()


def test_another_key_in_the_key_file_opens_nothing(server, dba, app, tenant):
    name = unique("key")
    path = server.make_local_key(name)
    made = tenant(f"local:{name}")
    envelope = app.encrypt(made)
    original = path.read_bytes()
    path.write_bytes(os.urandom(32))
    dba.run("SELECT cmk.evict(%s)", made.name)
    with fails("39000", "wrapped_key_rejected", made):
        app.decrypt(made, envelope)
    path.write_bytes(original)
    dba.run("SELECT cmk.evict(%s)", made.name)
    assert app.decrypt(made, envelope) == CANARY
