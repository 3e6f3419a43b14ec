"""The SQL of README.md and docs/ runs, and does what the pages say it does.

`pages.py` says how blocks are written. Each page of docs/ goes on where the README ended.
"""

import re

import pytest

from pages import DOCS, README, RUNBOOK
from support import fails

# Blocks that no session can run, and why. A new one has to be added here.
NOT_RUN = {
    "docs/operations.md": ["takes a replica in another Region"],
    "docs/settings.md": ["changes the server's configuration"],
}

LEAST = {"blocks": 4, "failures": 2, "values": 4}


@pytest.fixture
def stage_for(server, kms):
    """What pages take for granted, by the names they give it: key files, KMS keys, roles of tenants' accounts."""
    paths, roles = [], set()

    def make(*pages):
        text = "\n".join(page.text for page in pages)
        roles.update(re.findall(r"^CREATE ROLE (\w+)", text, re.MULTILINE))
        names = {}
        for arn, region in re.findall(r"'(arn:aws:kms:([a-z0-9-]+):\d{12}:key/[0-9a-f-]{36})'", text):
            names[arn] = kms.key(region)
        for arn, external_id in re.findall(r'"role_arn": "([^"]+)",\s+"external_id": "([^"]+)"', text):
            names[arn] = kms.role(external_id)
        for name in sorted(set(re.findall(r"'local:(\w+)'", text))):
            paths.append(server.make_local_key(name))
        # Longer names first: one may begin with another.
        return sorted(names.items(), key=lambda item: -len(item[0]))

    yield make
    for path in paths:
        path.unlink()
    for role in roles:
        server.execute(f"DROP ROLE IF EXISTS {role}")


def shown(value):
    """As psql shows it."""
    return {True: "t", False: "f"}.get(value, str(value)) if isinstance(value, bool) else str(value)


def play(reader, blocks, names):
    for step in (step for block in blocks for step in block):
        sql = step.sql
        for name, made in names:
            sql = sql.replace(name, made)
        if step.error:
            with fails(*step.error):
                reader.connection.execute(sql)
            continue
        cursor = reader.connection.execute(sql)
        if step.value is not None:
            rows = [tuple(map(shown, row)) for row in cursor.fetchall()]
            assert step.returns(rows), (sql, rows)


def test_the_sql_of_the_readme_runs_as_it_says(stage_for, session, database):
    everything = [step for block in README.sql() for step in block]
    assert len(README.sql()) >= LEAST["blocks"]
    assert sum(step.error is not None for step in everything) >= LEAST["failures"]
    assert sum(step.value is not None for step in everything) >= LEAST["values"]
    names = stage_for(README)
    play(session(dbname=database(extension=False)), README.sql(), names)


@pytest.mark.parametrize("page", [page for page in DOCS if page.has_sql()], ids=str)
def test_the_sql_of_a_page_runs_as_it_says(page, stage_for, session, database):
    names = stage_for(README, page)
    play(session(dbname=database(extension=False)), [*README.sql(), *page.sql()], names)


def test_the_sql_of_the_runbook_runs_as_it_says(stage_for, session, database):
    """One page after the other, in one database: they look, and leave things as they are."""
    names = stage_for(README, *RUNBOOK)
    blocks = [block for page in RUNBOOK for block in page.sql()]
    assert len(blocks) >= len(RUNBOOK) > 10
    play(session(dbname=database(extension=False)), [*README.sql(), *blocks], names)


def test_the_pages_have_sql_that_runs():
    run = {page.path.name for page in DOCS if page.has_sql()}
    assert {"columns.md", "functions.md", "onboarding.md", "operations.md"} <= run


def test_blocks_that_do_not_run_are_known_and_say_why():
    marked = {str(page): page.not_run() for page in [README, *DOCS, *RUNBOOK]}
    assert {page: reasons for page, reasons in marked.items() if reasons} == NOT_RUN


def test_sql_has_no_other_name():
    """A block in another spelling, or indented, would not run unnoticed."""
    for page in [README, *DOCS, *RUNBOOK]:
        written = re.findall(r"^\s*(?:```|~~~)\s*(\w*sql\w*)", page.text, re.MULTILINE | re.IGNORECASE)
        counted = list(page.blocks("sql"))
        assert [name for name in written if name != "sql"] == [] and len(written) == len(counted), page
