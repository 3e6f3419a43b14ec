"""Markdown pages of the project as the tests read them.

In an SQL block a line `-- ERROR: SQLSTATE (reason=NAME)` announces the failure of the statement below it,
and `-- → VALUE` the single value of the statement above it, as psql shows it, or how it begins: `-- → cmk1:…`. A
statement ends at a line that ends in `;`. A block that can't run here says why: ```sql (not run: needs a standby)
"""

import re
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from server import ROOT

FENCE = re.compile(r"^```([^\n]*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


@dataclass
class Step:
    sql: str
    error: tuple | None = None
    value: str | None = None


    def returns(self, rows):
        """Whether these are the rows that it returns, as psql shows them."""
        if self.value.endswith("…"):
            return len(rows) == len(rows[0]) == 1 and rows[0][0].startswith(self.value[:-1])
        return rows == [(self.value,)]


@dataclass(frozen=True)
class Page:
    path: Path

    def __str__(self):
        return str(self.path.relative_to(ROOT))

    @property
    def text(self):
        return self.path.read_text()

    @property
    def prose(self):
        """The page without its code blocks, whose comments would pass for headings."""
        return FENCE.sub("", self.text)

    def blocks(self, language):
        """(what follows the language, text) of each code block."""
        for info, text in FENCE.findall(self.text):
            name, _, rest = info.partition(" ")
            if name == language:
                yield rest, text

    def has_sql(self):
        return any(not rest for rest, _ in self.blocks("sql"))

    def sql(self):
        """Steps of each block that runs."""
        return [steps(text) for rest, text in self.blocks("sql") if not rest]

    def not_run(self):
        """Why blocks of SQL don't run."""
        marks = [rest for rest, _ in self.blocks("sql") if rest]
        return [re.fullmatch(r"\(not run: (.+)\)", mark)[1] for mark in marks]

    def headings(self):
        return re.findall(r"^#+ (.+)$", self.prose, re.MULTILINE)

    def anchors(self):
        """As GitHub makes them from headings."""
        return [re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in self.headings()]

    def sections(self, level):
        """{heading: text below it} of headings of one level, up to the next one that is not deeper."""
        text = FENCE.sub(lambda block: re.sub("^#", "\0", block[0], flags=re.MULTILINE), self.text)
        pattern = rf"^{'#' * level} ([^\n]+)\n(.*?)(?=^#{{1,{level}}} |\Z)"
        found = re.findall(pattern, text, re.DOTALL | re.MULTILINE)
        return {heading: body.replace("\0", "#") for heading, body in found}


def steps(block):
    found, lines, error = [], [], None
    for line in block.splitlines():
        if announced := re.fullmatch(r"-- ERROR: (\w{5}) \(reason=(\w+)\)", line):
            error = announced.groups()
        elif returned := re.fullmatch(r"-- → (.+)", line):
            found[-1].value = returned[1]
        else:
            lines.append(line)
            # Not within the body of a function.
            if line.endswith(";") and "\n".join(lines).count("$$") % 2 == 0:
                found.append(Step("\n".join(lines), error))
                lines, error = [], None
    assert not "".join(lines).strip() and not error, "an unfinished statement"
    return found


@cache
def every_page():
    """All Markdown files of the repository."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "*.md"], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True
    )
    return [Page(ROOT / name) for name in sorted(listed.stdout.split("\0")) if name]


README = Page(ROOT / "README.md")
DOCS = [Page(path) for path in sorted((ROOT / "docs").glob("*.md"))]
RUNBOOK = [Page(path) for path in sorted((ROOT / "docs" / "runbooks").glob("*.md"))]


def docs(name):
    return Page(ROOT / "docs" / name)


def one_line(text):
    """Markdown's own view of white space."""
    return " ".join(text.split())


@cache
def reason_source():
    """The file that holds the table of reasons."""
    [source] = [*ROOT.glob("crates/error/**/reason.rs"), *ROOT.glob("src/error/**/reason.rs")]
    return source.read_text()


@dataclass(frozen=True)
class Reason:
    variant: str
    name: str
    sqlstate: str
    message: str
    hint: str


@cache
def reasons():
    """{name: Reason} of every row of the error table, read from the source."""
    source = reason_source()
    codes = {state: code for code, state in re.findall(r"/// (\w{5}) \w+.*\n    (\w+),", source)}
    table = re.search(r"^reasons! \{(.*?)^\}", source, re.DOTALL | re.MULTILINE)[1]
    string = r'"((?:[^"\\]|\\.)*)"'
    rows = re.findall(rf"^    ([A-Z]\w+) = {string}, (\w+),\s+{string},\s+{string};", table, re.MULTILINE)
    assert len(rows) == len(re.findall(r"^    [A-Z]\w+ = ", table, re.MULTILINE)) > 40

    def plain(text):
        return re.sub(r"\\(.)", r"\1", re.sub(r"\\\n\s*", "", text))

    return {
        name: Reason(variant, name, codes[state], plain(message), plain(hint))
        for variant, name, state, message, hint in rows
    }
