"""Puts what `cargo pgrx schema` prints (stdin) into an order that does not change from build to build,
without what pgrx says about Rust: the schema and the functions by name, then the SQL files as
src/lib.rs names them. So a function written in Rust can use only what sql/registry.sql creates."""

import re
import sys

HEADER = """\
-- Made by scripts/schema.sh: change sql/*.sql and src/sql/*.rs, then run that.
\\echo Use "CREATE EXTENSION cmk_encrypt" to load this file. \\quit"""
BLOCK = re.compile(r"/\* <begin connected objects> \*/\n(.*?)/\* </end connected objects> \*/\n", re.S)
SQL_FILE = re.compile(r"-- src/lib\.rs:(\d+)\n(-- (?:bootstrap|finalize)\n)?")


def part(block):
    """Its place, and its text."""
    if file := SQL_FILE.match(block):
        rank = {"-- bootstrap\n": 0, None: 3, "-- finalize\n": 4}[file[2]]
        return rank, int(file[1]), block[file.end():]
    block = re.sub(r"\A(-- .*\n)+", "", block)  # source line and Rust path
    block = re.sub(r" +/\* .*? \*/", "", block)  # Rust types
    block = re.sub(r" +$", "", block, flags=re.M).replace("CREATE  ", "CREATE ").replace("\t", "    ")
    return 2 if "FUNCTION" in block else 1, 0, block


parts = [part(block) for block in BLOCK.findall(sys.stdin.read())]
texts = [text.strip() for _, _, text in sorted(parts)]
print(HEADER, *(text for text in texts if text and not text.startswith("/*")), sep="\n\n")
