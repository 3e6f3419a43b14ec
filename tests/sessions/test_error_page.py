"""docs/errors.md explains every reason as the code has it: SQLSTATE, message, hint, and what is forgiven."""

import re

from pages import docs, one_line, reason_source, reasons
from server import ROOT

ERRORS, FUNCTIONS = docs("errors.md"), docs("functions.md")
# Raised while the library loads, before there is a table of reasons.
LOADER = "cpu_feature"


def sections():
    """{reason: its section}"""
    return ERRORS.sections(3)


def expected():
    codes = {name: reason.sqlstate for name, reason in reasons().items()}
    [source] = [path for path in (ROOT / "src").glob("**/cpu.rs")]
    assert f"reason={LOADER}" in source.read_text()
    return {**codes, LOADER: "F0000"}


def test_every_reason_has_a_section():
    assert sorted(sections()) == sorted(expected())


def test_sections_have_sqlstate_message_cause_fix_and_hint():
    described, actual = {}, {}
    for name, sqlstate in expected().items():
        if name not in sections():
            continue  # the test above says so
        head, *paragraphs = re.split(r"\n\n+", sections()[name].strip())
        written = re.fullmatch(r"(\w{5}) · `(.*)`", one_line(head))
        assert written and written[1] == sqlstate, f"{name}: {head}"
        labels = [re.match(r"\*(\w+):\*", paragraph)[1] for paragraph in paragraphs]
        assert labels == (["Cause", "Fix"] if name == LOADER else ["Cause", "Fix", "Hint"]), name
        if name == LOADER:
            continue
        described[name] = (written[2], one_line(paragraphs[-1]).removeprefix("*Hint:* "))
        actual[name] = (reasons()[name].message.replace("%", '"acme"'), reasons()[name].hint)
    assert described == actual


def test_the_table_has_every_reason_under_its_sqlstate():
    rows = re.findall(r"^\| \[`(\w+)`\]\(#(\w+)\) \| (\w{5}) \| [^|]+ \|$", ERRORS.text, re.MULTILINE)
    assert all(name == anchor for name, anchor, _ in rows)
    assert len({name for name, _, _ in rows}) == len(rows)
    assert {name: sqlstate for name, _, sqlstate in rows} == expected()


def variants_in(function):
    """Names of the reasons that a `matches!` in `function` lists."""
    listed = re.search(rf"fn {function}.*?matches!\(\s*self,\s*(.*?)\)", reason_source(), re.DOTALL)[1]
    names = {reason.variant: reason.name for reason in reasons().values()}
    return sorted(names[variant] for variant in re.findall(r"\w+", listed))


def test_what_try_decrypt_forgives_is_named():
    section = one_line(FUNCTIONS.sections(3)["cmk_try_decrypt"])
    listed = re.search(r"By default these are forgiven: (.*?)\.", section)[1]
    assert sorted(re.findall(r"`(\w+)`", listed)) == variants_in("concerns_one_value")


def test_what_concerns_one_process_is_named():
    listed = [row for row in ERRORS.text.splitlines() if row.endswith("| by the process that met it |")]
    assert listed
    named = sorted(name for row in listed for name in re.findall(r"`(\w+)`", row))
    # Not raised by a call to KMS.
    assert named == sorted(set(variants_in("concerns_one_process")) - {"system_random", "out_of_memory"})


def test_every_reason_of_the_functions_page_exists():
    for heading, text in FUNCTIONS.sections(3).items():
        if errors := re.search(r"^- Errors: (.*?)(?=^\S|\Z)", text, re.DOTALL | re.MULTILINE):
            named = re.findall(r"`(\w+)`", re.sub(r"\[`\w+`\]\(#\w+\)", "", errors[1]))
            assert set(named) <= set(reasons()), heading


def causes():
    """{cause: hint}, read from the source."""
    source = (ROOT / "crates" / "error" / "src" / "cause.rs").read_text()
    string = r'"((?:[^"\\]|\\.)*)"'
    found = re.findall(rf"^    \w+ = {string},\n\s+{string};", source, re.MULTILINE)
    assert len(found) > 10
    return dict(found)


def test_every_cause_is_in_the_table_and_has_its_hint_below():
    section = ERRORS.sections(2)["Which layer failed"]
    rows = re.findall(r"^\| `(\w+)(?::PROVIDER)?` \|", section, re.MULTILINE)
    assert rows == list(causes())
    listed = re.findall(r"^- `(\w+)`: (.*?)(?=^- |\Z)", section, re.DOTALL | re.MULTILINE)
    assert {name: one_line(hint) for name, hint in listed} == causes()
