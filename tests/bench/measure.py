"""What the measurements in Python share: how large, how often, and how a line is printed."""

import os
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "sessions"))

ROWS = int(os.environ.get("ROWS", 1_000_000))
RUNS = int(os.environ.get("RUNS", 3))


class Bench:
    def __init__(self, connection):
        self.connection = connection

    def run(self, *statements):
        for statement in statements:
            self.connection.execute(statement)

    def one(self, query, *parameters):
        return self.connection.execute(query, parameters or None).fetchone()[0]

    def milliseconds(self, action):
        """How long a statement takes, or a function."""
        started = time.perf_counter()
        if callable(action):
            action()
        else:
            self.connection.execute(action)
        return (time.perf_counter() - started) * 1e3

    def best(self, actions, before=()):
        """The best time of each action, in turns; `before` each of them a statement that isn't timed."""
        best = [float("inf")] * len(actions)
        for _ in range(RUNS):
            for nth, action in enumerate(actions):
                self.run(*(prepare[nth] for prepare in before))
                best[nth] = min(best[nth], self.milliseconds(action))
        return best


def head(what):
    print(f"\n{what:<74} {'measured':>10} {'asked':>12}\n")


def show(what, measured, asked=""):
    print(f"{what:<74} {measured:>10} {asked:>12}", flush=True)


def ratio(what, ours, theirs, at_most=None):
    show(what, f"{ours / theirs:.2f} x", f"<= {at_most} x" if at_most else "")
