"""Runs the programs in node/ once for many questions: Node takes longer to start than they take."""

import json
import os
import subprocess
from pathlib import Path

NODE = Path(__file__).resolve().parent / "node"


def ask(program, questions):
    done = subprocess.run(
        ["node", str(NODE / program)], input=json.dumps(questions), stdout=subprocess.PIPE, text=True, check=True,
        timeout=120,
    )
    answers = json.loads(done.stdout)
    assert len(answers) == len(questions)
    return answers
