"""Every way of pg_restore brings all data keys, tenants, grants and events back, or fails.

RESTORE_RUNS says how often each way is gone.
"""

import os
from itertools import permutations

import pytest

from dumps import (  # noqa: F401 (fixtures)
    SEALED, attempt, client, complete, contents, data_of, filled, occupied, open_all, problems,
    reordered, restore, restore_list, run_script, source, take,
)
from support import CANARY, fails

RUNS = int(os.environ.get("RESTORE_RUNS", "2"))
TABLES = ("tenant", "data_key", "access", "key_event")

# Calls of pg_dump or pg_restore, one after another.
APART = [["--schema-only"], ["--data-only"]]
SECTIONS = [["--section=pre-data"], ["--section=data"], ["--section=post-data"]]

# Options of pg_dump, and of each call of pg_restore.
ARCHIVES = {
    **{f"custom -j{jobs}": (["-Fc"], [[f"-j{jobs}"]]) for jobs in (1, 2, 4, 8)},
    **{f"directory -j{jobs}": (["-Fd", f"-j{jobs}"], [[f"-j{jobs}"]]) for jobs in (1, 2, 4, 8)},
    "one transaction": (["-Fc"], [["--single-transaction"]]),
    "tar": (["-Ft"], [[]]),
    "data apart": (["-Fc"], APART),
    "data apart -j4": (["-Fc"], [[*part, "-j4"] for part in APART]),
    "sections": (["-Fc"], SECTIONS),
    "sections -j4": (["-Fd"], [[*part, "-j4"] for part in SECTIONS]),
}
SCRIPTS = {
    "whole": [[]],
    "inserts": [["--inserts"]],
    "data apart": APART,
    "sections": SECTIONS,
}
CLEAN = ["--clean", "--if-exists"]


# What comes back


def rotate(dba, tenant="a"):
    return dba.one("SELECT cmk.rotate_tenant(%s)", tenant)


@pytest.mark.parametrize("dump, calls", ARCHIVES.values(), ids=list(ARCHIVES))
def test_an_archive_brings_everything_back(take, restore, database, complete, dump, calls):
    for _ in range(RUNS):
        archive, target = take(*dump), database(extension=False)
        for options in calls:
            restore(target, archive, *options)
        assert rotate(complete(target), "there") == 3


@pytest.mark.parametrize("calls", SCRIPTS.values(), ids=list(SCRIPTS))
@pytest.mark.parametrize("psql", [[], ["--single-transaction"]], ids=["", "one transaction"])
def test_a_script_brings_everything_back(server, source, database, complete, calls, psql):
    for _ in range(RUNS):
        target = database(extension=False)
        for options in calls:
            run_script(server, target, client(server, "pg_dump", *options, source), *psql)
        complete(target)


@pytest.mark.parametrize("options", [[], ["-j4"], ["--single-transaction"], CLEAN, [*CLEAN, "-j4"]],
                         ids=" ".join)
def test_a_database_that_has_the_extension_takes_everything(
    take, restore, database, complete, options
):
    for _ in range(RUNS):
        target = database(extension=True)
        restore(target, take(), *options)
        complete(target)


def test_a_script_that_cleans_up_first_fills_an_empty_registry(server, source, database, complete):
    target = database(extension=True)
    run_script(server, target, client(server, "pg_dump", *CLEAN, source))
    complete(target)


# The order of the tables


def test_the_tables_of_the_registry_are_restored_in_any_order(
    server, take, restore_list, database, complete
):
    archive = take()
    entries = contents(server, archive)
    for order in permutations(TABLES):
        target = database(extension=False)
        restore_list(target, archive, reordered(entries, order))
        complete(target)


@pytest.mark.parametrize("options", [[], ["-j4"]], ids=" ".join)
def test_the_tables_of_the_registry_are_restored_in_reverse(
    server, take, restore_list, database, complete, options
):
    for _ in range(RUNS):
        archive, target = take(), database(extension=False)
        restore_list(target, archive, reordered(contents(server, archive), TABLES[::-1]), *options)
        complete(target)


# What a restore leaves


def test_a_restore_with_disabled_triggers_leaves_them_off_and_says_how_to_mend_that(
    take, restore, database, session, filled, complete
):
    for _ in range(RUNS):
        archive, target = take(), database(extension=False)
        restore(target, archive, "--schema-only")
        restore(target, archive, "--data-only", "--disable-triggers")
        restored = session(dbname=target)
        left = off(restored)
        assert left
        complete(target, found=[("trigger_not_always", None)] * len(left))
        rows = restored.all("SELECT detail, fix FROM cmk.check()")
        for table, trigger in left:
            told = any(table in detail and trigger in detail for detail, _ in rows)
            assert told, (table, trigger)
        for _, fix in rows:
            restored.connection.execute(fix)
        assert off(restored) == []
        complete(target)


def off(dba):
    """The registry's triggers that don't fire always."""
    return dba.all(
        "SELECT tgrelid::regclass::text, tgname"
        " FROM pg_trigger JOIN pg_class c ON c.oid = tgrelid"
        " WHERE relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = 'cmk')"
        " AND NOT tgisinternal AND tgenabled <> 'A'"
    )


# A database with keys of its own


@pytest.mark.parametrize("tenant", ["here", "mine"])
@pytest.mark.parametrize(
    "options", [[], ["-j4"], ["--exit-on-error"], ["--single-transaction"]], ids=" ".join
)
def test_a_restore_that_cleans_up_first_destroys_no_keys(server, take, occupied, tenant, options):
    for _ in range(RUNS):
        target, keeps_all = occupied(tenant)
        done = attempt(server, "pg_restore", *CLEAN, *options, "-d", target, take())
        assert done.returncode != 0
        assert b"reason=keys_would_be_lost" in done.stderr, done.stderr.decode()
        assert keeps_all()


@pytest.mark.parametrize(
    "options", [[], ["--single-transaction"], ["-v", "ON_ERROR_STOP=1"]], ids=" ".join
)
def test_a_script_that_cleans_up_first_destroys_no_keys(server, source, occupied, options):
    target, keeps_all = occupied("here")
    script = client(server, "pg_dump", *CLEAN, source)
    done = attempt(server, "psql", "-qX", *options, "-d", target, input=script)
    assert b"reason=keys_would_be_lost" in done.stderr, done.stderr.decode()
    assert keeps_all()


@pytest.mark.parametrize("options", [[], ["-j4"], ["--data-only"]], ids=" ".join)
def test_a_restore_over_a_tenant_of_the_same_name_fails_and_keeps_the_old_keys(
    server, take, occupied, options
):
    target, keeps_all = occupied("here")
    done = attempt(server, "pg_restore", *options, "-d", target, take())
    assert done.returncode != 0
    assert done.stderr.count(b"duplicate key value") >= 2, done.stderr.decode()
    assert keeps_all()


def test_a_restore_beside_another_tenant_keeps_both(session, take, restore, filled, occupied):
    target, keeps_all = occupied("mine")
    restore(target, take())
    assert keeps_all()
    assert open_all(session(filled[1], dbname=target)) == SEALED
    assert problems(session(dbname=target)) == []


# A restore that lost a table


def test_lost_data_keys_are_told_and_no_new_ones_take_their_place(
    server, session, take, database, restore, restore_list, filled, complete
):
    archive, target = take(), database(extension=False)
    entries = contents(server, archive)
    lost = data_of(entries, "data_key")
    restore_list(target, archive, [entry for entry in entries if entry != lost])
    dba, user = session(dbname=target), session(filled[1], dbname=target)
    sealed = user.one("SELECT sealed FROM patient WHERE tenant = 'there' LIMIT 1")
    for attempt_ in (
        lambda: user.encrypt("there"),
        lambda: user.decrypt("there", sealed, b"aad"),
        lambda: user.one("SELECT cmk_try_decrypt('there', %b, 'aad')", sealed),
        lambda: rotate(dba, "there"),
        lambda: dba.run("SELECT cmk.activate_tenant('there')"),
    ):
        with fails("55000", "data_keys_missing", "there"):
            attempt_()
    assert {tenant for _, tenant in problems(dba)} >= {"here", "there", "suspended"}
    assert "pending" not in {tenant for _, tenant in problems(dba)}
    restore_list(target, archive, [lost])
    assert open_all(user) == SEALED
    assert rotate(complete(target), "there") == 3


def test_a_lost_tenant_is_told_and_not_registered_anew(
    server, session, take, database, restore_list, filled, complete
):
    archive, target = take(), database(extension=False)
    entries = contents(server, archive)
    lost = data_of(entries, "tenant")
    restore_list(target, archive, [entry for entry in entries if entry != lost])
    dba, user = session(dbname=target), session(filled[1], dbname=target)
    with fails("42704", "unknown_tenant", "here"):
        user.encrypt("here")
    for activate in (True, False):
        with fails("55000", "tenant_row_missing", "here"):
            dba.run("SELECT cmk.register_tenant('here', 'local:shared', activate => %s)", activate)
    assert {tenant for _, tenant in problems(dba)} >= {"here", "there", "suspended"}
    restore_list(target, archive, [lost])
    assert open_all(user) == SEALED
    assert rotate(complete(target), "there") == 3


COLUMNS = "tenant, version, purpose, state, commitment, wrapped, wrapped_by, created_at"


@pytest.mark.parametrize("lost", [1, 2])
def test_a_lost_data_key_is_told_and_its_number_not_given_again(session, database, lost):
    dba = session(dbname=database())
    dba.run("SELECT cmk.register_tenant('a', 'local:shared'), cmk.grant_access('a', 'postgres')")
    warm, envelopes = session(dbname=dba.connection.info.dbname), {1: dba.encrypt("a")}
    assert rotate(dba) == 2
    envelopes[2] = dba.encrypt("a")
    assert [warm.decrypt("a", envelope) for envelope in envelopes.values()] == [CANARY] * 2

    kept = dba.row(f"SELECT {COLUMNS} FROM cmk.data_key WHERE version = %s", lost)
    with dba.connection.transaction():
        dba.run("ALTER TABLE cmk.data_key DISABLE TRIGGER ALL")
        dba.run("DELETE FROM cmk.data_key WHERE version = %s", lost)
        for trigger in ("guard", "guard_row", "announce", "announce_truncate"):
            dba.run(f"ALTER TABLE cmk.data_key ENABLE ALWAYS TRIGGER {trigger}")
    assert ("data_keys_missing", "a") in problems(dba)
    for user in (warm, session(dbname=dba.connection.info.dbname)):
        uses = [lambda: user.decrypt("a", envelopes[lost]), lambda: rotate(user)]
        if lost == 2:
            uses.append(lambda: user.encrypt("a"))
        for use in uses:
            with fails("55000", "data_keys_missing", "a"):
                use()

    dba.run(f"INSERT INTO cmk.data_key ({COLUMNS}) VALUES (%s, %s, %s, %s, %b, %b, %s, %s)", *kept)
    assert problems(dba) == []
    assert [warm.decrypt("a", envelope) for envelope in envelopes.values()] == [CANARY] * 2
    assert rotate(dba) == 3


def test_a_tenant_from_an_older_backup_gives_no_version_twice(session, database):
    dba = session(dbname=database())
    dba.run("SELECT cmk.register_tenant('a', 'local:shared'), cmk.grant_access('a', 'postgres')")
    for version in (2, 3):
        assert rotate(dba) == version
    envelope = dba.encrypt("a")
    dba.run("UPDATE cmk.tenant SET last_version = 1")
    assert rotate(dba) == 4
    assert dba.decrypt("a", envelope) == CANARY
