"""A dump holds ciphertext only, whoever takes it and however, and restores to the same bytes."""

import os

import pytest

from columns import Client, armor, dba, envelopes, opened, plain, protect, world  # noqa: F401 (fixtures)
from dumps import attempt, client, run_script
from support import unique

SECRET = "dumped-secret"
FORMATS = {
    "plain": [], "custom": ["-Fc"], "directory": ["-Fd", "-j2"], "inserts": ["--inserts"],
    "column inserts": ["--column-inserts"],
    "rows per insert": ["--rows-per-insert=2"], "data only": ["--data-only"],
    "without triggers": ["--data-only", "--disable-triggers"],
    "row security": ["--enable-row-security"], "inserts with row security": ["--inserts", "--enable-row-security"],
    "one table": ["-t", "u"], "a snapshot": ["--serializable-deferrable"],
}


@pytest.fixture(scope="module")
def u(world):
    """A table of sealed values, some of which look like armor or are long; and one half sealed."""
    world.make("u", shape="id int PRIMARY KEY, tenant_id text, ssn text, note varchar(40)")
    writer = world.connect("app", input="text")
    given = "cmk1:" + "A" * 136
    for id, value in enumerate([SECRET, f"{SECRET} é\t\n\\ '", "", None, f"cmk1:{SECRET}", f"cmk0:{SECRET}",
                                SECRET * 5000, given], 1):
        writer.run("INSERT INTO u VALUES (%s, 'acme', %s, NULL)", id, value)
    writer.run("INSERT INTO u (id, tenant_id, ssn) VALUES (20, 'acme', %s)", armor(envelopes(world.dba, "u")[1]))
    writer.run("INSERT INTO u VALUES (30, 'bolt', %s, %s), (31, NULL, NULL, NULL)", SECRET, f"{SECRET} note")
    return "u"


@pytest.fixture(scope="module")
def half(world, u):
    """Two rows are sealed, two are plain; one of these looks like armor."""
    dba = world.dba
    dba.run("CREATE TABLE half (id int PRIMARY KEY, tenant_id text, ssn text, note text)")
    world.fill("half", [(1, "acme", "sealed", None), (2, "bolt", "sealed", None), (3, "acme", "plain", None),
                        (4, "acme", armor(envelopes(dba, u)[1]), None)])
    protect(dba, "half", "ssn", "note", rewrite=False)
    dba.run("UPDATE half SET ssn = ssn WHERE id < 3")
    dba.run("GRANT ALL ON half TO PUBLIC")
    return "half"


@pytest.fixture
def dumper(world, server):
    """Makes roles for which plaintext output is set: superusers, and others with what they need."""
    def make(superuser):
        name = unique("dumper")
        server.execute(f"CREATE ROLE {name} LOGIN {'SUPERUSER' if superuser else 'BYPASSRLS'}")
        server.execute(f"ALTER ROLE {name} SET cmk_encrypt.output = plaintext")
        if not superuser:
            server.execute(f"GRANT pg_read_all_data TO {name}")
            world.dba.run(f"GRANT SELECT ON ALL TABLES IN SCHEMA cmk TO {name}")
        for tenant in ("acme", "bolt"):
            world.dba.run("SELECT cmk.grant_access(%s, %s)", tenant, name)
        return name

    return make


@pytest.fixture
def target(server):
    """Makes databases; `connect` them with `inside`."""
    made, sessions = [], []

    def make():
        made.append(unique("restored"))
        server.execute(f"CREATE DATABASE {made[-1]}")
        return made[-1]

    def inside(name, role="postgres", **settings):
        sessions.append(Client(server.connect(name, role)))
        for setting, value in settings.items():
            sessions[-1].run(f"SELECT set_config('cmk_encrypt.{setting}', '{value}', false)")
        return sessions[-1]

    make.inside = inside
    yield make
    for session in sessions:
        session.close()
    for name in made:
        server.execute(f"DROP DATABASE {name} WITH (FORCE)")


def dump(world, path, *options, role="postgres"):
    """All that pg_dump wrote."""
    client(world.server, "pg_dump", "-U", role, "-f", path, *options, world.dbname)
    files = [path] if path.is_file() else list(path.iterdir())
    return path, files


def contents(world, path, files):
    if path.is_dir() or path.read_bytes().startswith(b"PGDMP"):
        return client(world.server, "pg_restore", "-f", "-", path)  # uncompressed
    return b"".join(file.read_bytes() for file in files)


@pytest.mark.parametrize("who", ["superuser", "plaintext superuser", "plaintext reader"])
@pytest.mark.parametrize("options", FORMATS.values(), ids=FORMATS)
def test_no_dump_holds_plaintext(world, u, dumper, tmp_path, who, options):
    role = "postgres" if who == "superuser" else dumper(superuser="super" in who)
    if options == ["--serializable-deferrable"] and who != "superuser":
        options = ["--inserts", "-t", "u"]
    text = contents(world, *dump(world, tmp_path / "dump", *options, role=role))
    assert text.count(b"cmk1:") >= 10
    for form in (SECRET.encode(), SECRET.encode().hex().encode()):
        assert form not in text


def test_other_programs_of_postgresql_as_a_plaintext_role(world, u, dumper, server):
    role = dumper(superuser=True)
    assert SECRET.encode() not in client(server, "pg_dumpall", "-U", role, "-l", world.dbname)
    # psql is a client like any other: what it prints is meant for whoever looks.
    assert SECRET.encode() in client(server, "psql", "-U", role, "-AtXc", "SELECT ssn FROM u", world.dbname)
    exported = client(server, "psql", "-U", role, "-AtXc", r"\copy u to stdout", world.dbname)
    assert SECRET.encode() not in exported and exported.count(b"cmk1:") == 10


RESTORES = {
    "plain": ([], None), "inserts": (["--inserts"], None),
    "column inserts": (["--column-inserts", "--rows-per-insert=3"], None),
    "custom, four jobs": (["-Fc"], ["-j4"]), "directory, four jobs": (["-Fd", "-j2"], ["-j4"]),
    "clean": (["-Fc"], ["--clean", "--if-exists"]),
    "in one transaction": (["-Fc"], ["--single-transaction"]),
    "in sections": (["-Fc"], ["--section=pre-data", "--section=data", "--section=post-data"]),
}


@pytest.mark.parametrize("options, restore", RESTORES.values(), ids=RESTORES)
@pytest.mark.parametrize("output", ["ciphertext", "plaintext"])
def test_a_restored_database_has_the_same_bytes_and_goes_on(world, server, u, half, target, dumper, tmp_path,
                                                            options, restore, output):
    role = dumper(superuser=True) if output == "plaintext" else "postgres"
    path, _ = dump(world, tmp_path / "dump", *options, role=role)
    name = target()
    if restore is None:
        run_script(server, name, path.read_bytes(), "-U", role)
    else:
        client(server, "pg_restore", "-U", role, "--exit-on-error", *restore, "-d", name, path)
    restored, app = target.inside(name), target.inside(name, world.roles["app"], output="plaintext")
    for table in (u, half):
        assert envelopes(restored, table) == envelopes(world.dba, table)
        assert envelopes(restored, table, "note") == envelopes(world.dba, table, "note")
        assert plain(app, table, "ssn, note") == plain(world.reader(), table, "ssn, note")
    with app.counts(seals=1):
        app.run("INSERT INTO u VALUES (90, 'acme', 'after', NULL)")
    assert app.one("SELECT ssn FROM u WHERE id = 90") == "after"
    assert restored.all(CHECKS) == world.dba.all(CHECKS) and restored.all(TRIGGERS) == world.dba.all(TRIGGERS)
    before = restored.one("SELECT count(*) FROM half WHERE cmk.is_sealed(ssn)")
    assert before == 2


CHECKS = (
    "SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid), convalidated FROM pg_constraint"
    " WHERE conname LIKE 'cmk%' ORDER BY 1, 2"
)
TRIGGERS = (
    "SELECT tgrelid::regclass::text, pg_get_triggerdef(oid), tgenabled FROM pg_trigger"
    " WHERE tgname LIKE '~%' ORDER BY 1"
)


def without_guard(dump):
    """Newer releases guard a dump with a random key."""
    return [line for line in dump.splitlines() if not line.startswith((b"\\restrict", b"\\unrestrict"))]


def test_a_dump_of_the_restored_database_is_the_same(world, server, u, half, target, tmp_path):
    first = dump(world, tmp_path / "first")[0].read_bytes()
    name = target()
    run_script(server, name, first)
    second = client(server, "pg_dump", name)
    assert without_guard(second) == without_guard(first)


def test_a_restore_needs_no_key(world, server, u, target, tmp_path):
    """Also where the tenant is dark: what arrives sealed is stored as it is."""
    calls = world.kms.counters()
    archive, _ = dump(world, tmp_path / "dump", "-Fc")
    name = target()
    client(server, "pg_restore", "--exit-on-error", "-j4", "-d", name, archive)
    assert envelopes(target.inside(name), "given.dim") == envelopes(world.dba, "given.dim")
    data = client(server, "pg_dump", "--data-only", "-t", "given.dim", world.dbname)
    target.inside(name).run("TRUNCATE given.dim")
    run_script(server, name, data)
    assert envelopes(target.inside(name), "given.dim") == envelopes(world.dba, "given.dim")
    answered = {key: counts for key, counts in world.kms.counters()["by_key"].items() if key != world.dark_key}
    assert answered == {key: counts for key, counts in calls["by_key"].items() if key != world.dark_key}


def test_a_dump_with_row_security_restores_where_envelopes_are_announced(world, server, u, half, target, tmp_path):
    """Its script doesn't switch row security off, which would tell a restore from an application."""
    script = dump(world, tmp_path / "dump", "--enable-row-security")[0].read_bytes()
    name = target()
    done = attempt(server, "psql", "-qX", "-v", "ON_ERROR_STOP=1", "-d", name, input=script)
    assert done.returncode != 0 and b"not_sealed" in done.stderr and b"cmk_encrypt.input" in done.stderr
    name = target()
    run_script(server, name, b"SET cmk_encrypt.input = envelope;\n" + script)
    for table in (u, half):
        assert envelopes(target.inside(name), table) == envelopes(world.dba, table)


# Data alone, into a table with its trigger


@pytest.fixture
def emptied(world, server, u, half, target, tmp_path):
    """A restored database whose tables are empty, and the dump of the data alone."""
    name = target()
    run_script(server, name, dump(world, tmp_path / "all")[0].read_bytes())
    target.inside(name).run("TRUNCATE u, half")

    def data(table, *options):
        return client(server, "pg_dump", "--data-only", "-t", table, *options, world.dbname)

    return name, data


@pytest.mark.parametrize("options", [[], ["--inserts"], ["--disable-triggers"]],
                         ids=["copy", "inserts", "without triggers"])
def test_data_alone_is_never_sealed_twice(world, server, emptied, target, options):
    name, data = emptied
    restored, app = target.inside(name), target.inside(name, world.roles["app"], output="plaintext")
    run_script(server, name, data("u", *options))
    assert envelopes(restored, "u") == envelopes(world.dba, "u")
    assert plain(app, "u", "ssn, note") == plain(world.reader(), "u", "ssn, note")
    if "--disable-triggers" in options:  # the CHECK refuses what is plain
        done = attempt(server, "psql", "-qX", "-v", "ON_ERROR_STOP=1", "-d", name, input=data("half", *options))
        assert done.returncode != 0 and b"not_sealed" in done.stderr
        return
    run_script(server, name, data("half", *options))
    assert plain(app, "half") == plain(world.reader(), "half")
    assert restored.one("SELECT count(*) FROM half WHERE NOT cmk.is_sealed(ssn)") == 0
    sealed, before = envelopes(restored, "half"), envelopes(world.dba, "half")
    assert (sealed[1], sealed[2]) == (before[1], before[2])


@pytest.mark.parametrize("options", [[], ["--inserts"]], ids=["copy", "inserts"])
def test_an_ordinary_role_restores_data_only_by_saying_so(world, server, emptied, target, options):
    name, data = emptied
    role, script = world.roles["app"], data("u", *options)
    restored = target.inside(name)
    psql = ["psql", "-qX", "-v", "ON_ERROR_STOP=1", "-U", role, "-d", name]
    done = attempt(server, *psql, input=script)
    assert done.returncode != 0 and b"armor_refused" in done.stderr and b"cmk_encrypt.input" in done.stderr
    assert restored.one("SELECT count(*) FROM u") == 0
    os.environ["PGOPTIONS"] = "-c cmk_encrypt.input=envelope"
    try:
        done = attempt(server, *psql, input=script)
    finally:
        del os.environ["PGOPTIONS"]
    assert done.returncode == 0, done.stderr
    assert envelopes(restored, "u") == envelopes(world.dba, "u")


def test_a_full_restore_by_an_ordinary_role_fails_or_is_right(world, server, u, role, target, tmp_path):
    """It makes no trigger first, so that only the CHECK stands between armor and a table."""
    name, owner = target(), role()
    server.execute(f"ALTER DATABASE {name} OWNER TO {owner}")
    target.inside(name).run("CREATE EXTENSION cmk_encrypt")
    archive, _ = dump(world, tmp_path / "dump", "-Fc", "-t", "u")
    restore = ["--exit-on-error", "--no-owner", "--no-acl", "-U", owner, "-d", name, archive]
    server.execute(f"GRANT ALL ON SCHEMA public TO {owner}", name)
    done = attempt(server, "pg_restore", *restore)
    assert done.returncode != 0 and b"not_sealed" in done.stderr
    assert SECRET.encode() not in done.stderr
    restored = target.inside(name)
    assert restored.one("SELECT count(*) FROM u") == 0
    restored.run("DROP TABLE u")
    os.environ["PGOPTIONS"] = "-c cmk_encrypt.input=envelope"
    try:
        client(server, "pg_restore", *restore)
    finally:
        del os.environ["PGOPTIONS"]
    assert envelopes(restored, "u") == envelopes(world.dba, "u")
