"""README.md and docs/ say what is: their SQL runs, and nothing that exists is missing.

In an SQL block a line `-- ERROR: SQLSTATE (reason=NAME)` announces the failure of the statement below it,
and `-- → VALUE` the single value of the statement above it. A statement ends at a line that ends in `;`.
"""

import json
import re
from dataclasses import dataclass

import pytest

from server import ROOT
from support import fails

README = (ROOT / "README.md").read_text()
ERRORS = (ROOT / "docs" / "errors.md").read_text()
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])

MIN_BLOCKS, MIN_FAILURES, MIN_VALUES = 7, 3, 6
ROLES = re.findall(r"^CREATE ROLE (\w+)", README, re.MULTILINE)
LOCAL_KEYS = sorted(set(re.findall(r"'local:(\w+)'", README)))
CONTEXT_KEY = "kms:EncryptionContext:"


@dataclass
class Step:
    sql: str
    error: tuple | None = None
    value: str | None = None


def steps(block):
    found, lines, error = [], [], None
    for line in block.splitlines():
        if announced := re.fullmatch(r"-- ERROR: (\w{5}) \(reason=(\w+)\)", line):
            error = announced.groups()
        elif returned := re.fullmatch(r"-- → (.+)", line):
            found[-1].value = returned[1]
        else:
            lines.append(line)
            if line.endswith(";"):
                found.append(Step("\n".join(lines), error))
                lines, error = [], None
    assert not "".join(lines).strip() and not error, "an unfinished statement"
    return found


BLOCKS = [steps(block) for block in re.findall(r"^```sql\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)]


@pytest.fixture
def world(server, kms):
    """What the README takes for granted: key files, and KMS keys and roles, by the names it gives them."""
    names = {}
    for arn, region in re.findall(r"'(arn:aws:kms:([a-z0-9-]+):\d{12}:key/[0-9a-f-]{36})'", README):
        names[arn] = kms.key(region)
    for arn, external_id in re.findall(r"role_arn => '([^']+)', external_id => '([^']+)'", README):
        names[arn] = kms.role(external_id)
    paths = [server.make_local_key(name) for name in LOCAL_KEYS]
    yield names
    for path in paths:
        path.unlink()
    for name in ROLES:
        server.execute(f"DROP ROLE IF EXISTS {name}")


def test_the_sql_of_the_readme_runs_as_it_says(world, session, database):
    everything = [step for block in BLOCKS for step in block]
    assert len(BLOCKS) >= MIN_BLOCKS
    assert sum(step.error is not None for step in everything) >= MIN_FAILURES
    assert sum(step.value is not None for step in everything) >= MIN_VALUES

    reader = session(dbname=database(extension=False))
    for step in everything:
        sql = step.sql
        for name, made in world.items():
            sql = sql.replace(name, made)
        if step.error:
            with fails(*step.error):
                reader.connection.execute(sql)
            continue
        cursor = reader.connection.execute(sql)
        if step.value is not None:
            assert [tuple(map(str, row)) for row in cursor.fetchall()] == [(step.value,)], sql


def reasons():
    """Reason and SQLSTATE of every row of the error table, and the one that the loader raises."""
    source = (ROOT / "src" / "error" / "reason.rs").read_text()
    codes = dict((name, code) for code, name in re.findall(r"/// (\w{5}) \w+.*\n    (\w+),", source))
    table = re.search(r"^reasons! \{(.*?)^\}", source, re.DOTALL | re.MULTILINE)[1]
    found = {name: codes[state] for name, state in re.findall(r'^    [A-Z]\w+ = "(\w+)", (\w+),', table, re.MULTILINE)}
    assert len(found) > 40
    assert "reason=cpu_feature" in (ROOT / "src" / "pg" / "cpu.rs").read_text()
    return {**found, "cpu_feature": "F0000"}


def test_every_reason_is_explained_under_its_own_heading():
    sections = dict(re.findall(r"^### (\w+)\n(.*?)(?=^##|\Z)", ERRORS, re.DOTALL | re.MULTILINE))
    assert sorted(sections) == sorted(reasons())
    for reason, sqlstate in reasons().items():
        text = sections[reason]
        assert re.match(rf"{sqlstate}[.,]", text), reason
        assert "*Cause:*" in text or reason == "system_random", reason
        assert "*Fix:*" in text, reason


def test_the_table_of_errors_has_every_reason_under_its_sqlstate():
    listed = {}
    for sqlstates, row in re.findall(r"^\| ((?:[0-9A-Z]{5}(?:, )?)+) \| (.*)$", README, re.MULTILINE):
        names = re.findall(r"\[`(\w+)`\]\(docs/errors\.md#(\w+)\)", row)
        assert names and all(name == anchor for name, anchor in names), row
        codes = sqlstates.split(", ")
        listed |= zip((name for name, _ in names), codes if len(codes) > 1 else codes * len(names), strict=True)
    assert listed == reasons()


def test_the_reasons_that_try_decrypt_forgives_are_named():
    source = (ROOT / "src" / "error" / "reason.rs").read_text()
    variants = re.search(r"fn concerns_one_value.*?matches!\(self, (.*?)\)", source, re.DOTALL)[1].split(" | ")
    names = [re.search(rf'{variant} = "(\w+)"', source)[1] for variant in variants]
    row = re.search(r"^\| `cmk_try_decrypt\(.*$", README, re.MULTILINE)[0]
    assert sorted(re.findall(r"`(\w+)`", row.split("one value (")[1].split(")")[0])) == sorted(names)


def test_every_setting_stands_in_the_table_with_its_default(dba):
    dba.run("LOAD 'cmk_encrypt'")
    defaults = dict(
        dba.all(
            "SELECT name, CASE unit WHEN 'ms' THEN (boot_val || 'ms')::interval::text ELSE coalesce(boot_val, '') END"
            " FROM pg_settings WHERE name LIKE 'cmk\\_encrypt.%'"
        )
    )
    source = (ROOT / "src" / "pg" / "settings.rs").read_text()
    assert sorted(defaults) == sorted(set(re.findall(r'c"(cmk_encrypt\.\w+)"', source)))
    rows = dict(re.findall(r"^\| `(cmk_encrypt\.\w+)` \| (\S+) \|", README, re.MULTILINE))
    assert sorted(rows) == sorted(defaults)
    for name, written in rows.items():
        value = "" if written == "empty" else written.strip("`")
        if re.fullmatch(r"\d+(min|s|ms)", value):
            value = dba.one("SELECT %s::interval::text", value)
        assert value == defaults[name], name


def test_every_function_table_and_view_is_mentioned(dba):
    # The functions bench_* belong to `make bench`, those named grantee_* to the type.
    objects = dba.all(
        "SELECT (i).schema, coalesce(proname, (i).name) FROM ("
        "  SELECT pg_identify_object(classid, objid, objsubid) AS i, CASE classid WHEN 'pg_proc'::regclass THEN objid END AS oid"
        "    FROM pg_depend JOIN pg_extension e ON refclassid = 'pg_extension'::regclass AND refobjid = e.oid"
        "   WHERE deptype = 'e' AND extname = 'cmk_encrypt') object LEFT JOIN pg_proc p USING (oid)"
        " WHERE (i).type IN ('function', 'table', 'view') AND proname !~ '^(bench|grantee)_' IS NOT FALSE"
    )
    assert len(objects) >= 20
    for schema, name in objects:
        written = f"`cmk.{name}" if schema == "cmk" else f"`{name}"
        assert re.search(re.escape(written) + r"\b", README), f"{schema}.{name}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_policies_are_json_and_name_the_context_that_is_sent(page):
    context = {"cmk_encrypt": "v1", "purpose": "dek"}
    for block in re.findall(r"^```json\n(.*?)^```$", page.read_text(), re.DOTALL | re.MULTILINE):
        document = json.loads(block)
        for statement in document.get("Statement", [document]):
            conditions = statement.get("Condition", {}).get("StringEquals", {})
            asked = {k.removeprefix(CONTEXT_KEY): v for k, v in conditions.items() if k.startswith(CONTEXT_KEY)}
            assert not asked or asked in (context, {**context, "tenant": "globex"}), page.name


def anchors(text):
    """As GitHub makes them from headings."""
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for path, anchor in re.findall(r"\]\((?!https?:)([^)#]*)#?([^)]*)\)", page.read_text()):
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{page.name}: {path}"
        if anchor:
            assert anchor in anchors(target.read_text()), f"{page.name}: {path}#{anchor}"
