"""Measurements, which take too long to run here, find what they import."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parents[1]
SCRIPTS = sorted([*TESTS.glob("bench/*.py"), TESTS / "endurance/endurance.py"])

# As `python SCRIPT`, but only what changes the path and what is imported.
IMPORTS = """
import ast, pathlib, sys
script = pathlib.Path(sys.argv[1])
sys.path[0] = str(script.parent)
body = [it for it in ast.parse(script.read_text()).body
        if isinstance(it, (ast.Import, ast.ImportFrom)) or "sys.path" in ast.unparse(it)]
exec(compile(ast.Module(body, []), script, "exec"), {"__file__": str(script)})
"""


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: f"{script.parent.name}-{script.stem}")
def test_what_is_imported_is_found(script):
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run([sys.executable, "-c", IMPORTS, str(script)], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
