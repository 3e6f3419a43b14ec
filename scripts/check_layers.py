#!/usr/bin/env python3
"""Fails where a lower layer of src/ names a higher one, or the core names pgrx, tokio or aws.

Arrows point only downwards: sql → pg → net → keyring → cache and kms → envelope and crypto → error.
`check_layers.py --self-test` proves that the check sees violations of every kind.
"""

import re
import sys
import tempfile
from pathlib import Path

# Lowest first. A module belongs to the layer of its longest prefix in this table.
LAYERS = [
    ("error", ["error"]),
    ("crypto", ["crypto", "envelope"]),
    ("kms", ["cache", "registry", "kms", "shared"]),
    ("keyring", ["keyring"]),
    ("net", ["runtime", "kms::aws"]),
    ("pg", ["pg"]),
    ("sql", ["sql"]),
]
HEIGHT = {tuple(name.split("::")): i for i, (_, names) in enumerate(LAYERS) for name in names}
CORE = 3  # up to and including the keyring
NET = 4
FOREIGN = re.compile(r"\b(pgrx\w*|tokio\w*|aws_(?:config|sdk|smithy|credential|runtime|types)\w*)\s*(?:::|;|\bas\b)")

# Comments, strings and character literals, which may name anything.
NOISE = re.compile(
    r"""//[^\n]* | /\*.*?\*/ | b?r(?P<h>\#*)".*?"(?P=h) | b?"(?:\\.|[^"\\])*" | b?'(?:\\.[^']*|[^'\\])'""",
    re.S | re.X,
)
INLINE_MODULE = re.compile(r"\bmod\s+(\w+)\s*\{")
PATH = re.compile(r"(?<![\w:$])(\$?crate|super|self)\s*::\s*")


def height(module):
    for length in range(len(module), 0, -1):
        if module[:length] in HEIGHT:
            return HEIGHT[module[:length]]
    return None


def matching_brace(text, start):
    depth = 0
    for i in range(start, len(text)):
        depth += {"{": 1, "}": -1}.get(text[i], 0)
        if depth == 0:
            return i
    return len(text)


def split_top(text):
    """Splits at the commas outside of braces."""
    parts, depth, part = [], 0, ""
    for c in text:
        depth += {"{": 1, "}": -1}.get(c, 0)
        if c == "," and depth == 0:
            parts.append(part)
            part = ""
        else:
            part += c
    return parts + [part]


def expand(text, at=0):
    """The paths of a use tree that begins at text[at]: `a::{b, c::d}` gives [a, b] and [a, c, d]."""
    segment = re.compile(r"\s*(\w+|\*)?\s*(::)?\s*")
    path = []
    while True:
        if text[at : at + 1] == "{":
            inside = text[at + 1 : matching_brace(text, at)]
            return [path + tail for branch in split_top(inside) for tail in expand(branch.strip())]
        found = segment.match(text, at)
        if found[1]:
            path.append(found[1])
        if not found[2]:
            return [path]
        at = found.end()


def references(file_module, text, modules):
    """Yields (offset, absolute path) of every crate path in the text of one file."""
    inline = [(m.start(), matching_brace(text, m.end() - 1), m[1]) for m in INLINE_MODULE.finditer(text)]
    for found in PATH.finditer(text):
        here = list(file_module) + [name for start, end, name in inline if start < found.start() < end]
        base = {"super": here[:-1], "self": here}.get(found[1], [])
        for path in expand(text, found.end()):
            absolute = list(base)
            for part in path:
                if part == "super":
                    absolute = absolute[:-1]
                elif part != "self":
                    absolute.append(part)
            yield found.start(), tuple(absolute)
    for child in {m[-1] for m in modules if m[:-1] == file_module}:
        for found in re.finditer(rf"(?<![\w:]){child}\s*::", text):
            yield found.start(), (*file_module, child)


def violations(src):
    files = {}
    for path in sorted(src.rglob("*.rs")):
        module = path.relative_to(src).with_suffix("").parts
        if module != ("lib",):
            files[module] = path
    for module, path in files.items():
        own = height(module)
        if own is None:
            yield f"{path}: belongs to no layer; add it to LAYERS"
            continue
        text = NOISE.sub(lambda m: re.sub(r"[^\n]", " ", m[0]), path.read_text())

        def at(offset):
            return f"{path}:{text.count(chr(10), 0, offset) + 1}: layer {LAYERS[own][0]}"

        for offset, target in references(module, text, files):
            named = height(target)
            if target and named is None:
                # Something lib.rs re-exports would go around the layers.
                named = len(LAYERS) - 1
            if target and named > own:
                yield f"{at(offset)} names {'::'.join(target)}"
        for found in FOREIGN.finditer(text):
            if own <= CORE or (own == NET and found[1].startswith("pgrx")):
                yield f"{at(found.start())} names {found[1]}"


def self_test():
    good = {
        "lib.rs": "mod sql; mod pg; use crate::sql::x;",
        "error.rs": "// crate::sql::x\nconst A: &str = \"crate::sql\"; const B: char = '\"';",
        "kms.rs": "pub mod arn;\n#[cfg(feature = \"net\")]\npub mod aws;\nuse crate::error::Error;",
        "kms/arn.rs": "use super::Provider; use crate::{crypto::{self, key::Key}, error};",
        "kms/aws.rs": "use crate::keyring::Keyring; use aws_sdk_kms::Client; use tokio::time;",
        "keyring.rs": "use crate::cache::Cache;\nmod tests { use super::*; use crate::kms::local; }",
        "pg.rs": "pub mod guc; use pgrx::prelude::*; use crate::runtime;",
        "pg/guc.rs": "use super::super::kms::aws::Config;",
    }
    bad = {
        "error.rs": ["use crate::envelope::Envelope;", "use crate::{error::A, sql};", "use super::cache::B;"],
        "kms.rs": ["fn f() { aws::connect() }", "use self::aws::Kms;", "use crate::kms::{arn, aws::Kms};"],
        "kms/arn.rs": ["use super::aws::Kms;", "mod tests { use super::super::aws; }", "use ::tokio::time;", "use aws_config as c;"],
        "keyring.rs": ["let x = crate::pg::guc::ttl();", "use pgrx::prelude::*;", "use crate::reexported;"],
        "kms/aws.rs": ["pgrx::info!()", "use crate::{\n    error::Error,\n    pg,\n};"],
        "pg.rs": ["crate::sql::encrypt::run()"],
        "stray.rs": [""],
    }

    def run(tree):
        with tempfile.TemporaryDirectory() as name:
            for file, text in tree.items():
                path = Path(name, file)
                path.parent.mkdir(exist_ok=True)
                path.write_text(text)
            return list(violations(Path(name)))

    assert run(good) == [], run(good)
    for file, lines in bad.items():
        for line in lines:
            assert len(run(good | {file: good.get(file, "") + "\n" + line})), (file, line)
    print(f"{sum(map(len, bad.values()))} violations seen, none where there is none")


if __name__ == "__main__":
    if sys.argv[1:] == ["--self-test"]:
        self_test()
    else:
        found = list(violations(Path(__file__).resolve().parent.parent / "src"))
        print("\n".join(found) or "every arrow points downwards")
        sys.exit(bool(found))
