"""A minute of mixed load with random faults; `make endurance` runs an hour."""

import subprocess
import sys

from server import ROOT


def test_a_minute_of_mixed_load_with_random_faults_leaves_nothing_bad():
    command = [sys.executable, str(ROOT / "tests" / "endurance" / "endurance.py"), "--seconds", "60"]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=180)
    assert done.returncode == 0, done.stdout
