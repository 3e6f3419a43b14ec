"""What recording an act as an event costs. Prints a table; fails nothing by a figure.

An event's row is written when the commit begins, so an act that is rolled back does all but that. What is compared:

    the act, committed - the act, rolled back - (one row changed, committed - one row changed, rolled back)

The last is what any commit costs. It waits for no disk here: that wait is one a commit, with an event or without, and
longer than all that is measured. ACTS in the environment says how often (200); the figures are medians, in turns, so
that a slow minute of the machine meets all alike.
"""

import os
import statistics
from pathlib import Path

from measure import Bench, head, show
from server import Server  # found by the path that `measure` sets

ACTS = int(os.environ.get("ACTS", "200"))
CALLS = {
    "grant_access": "SELECT cmk.grant_access('acme', 'app')",
    "revoke_access": "SELECT cmk.revoke_access('acme', 'app')",
    "suspend_tenant": "SELECT cmk.suspend_tenant('acme')",
    "resume_tenant": "SELECT cmk.resume_tenant('acme')",
    "evict": "SELECT cmk.evict('acme')",
    "rotate_tenant (local key)": "SELECT cmk.rotate_tenant('acme')",
}
PLAIN = "UPDATE plain SET n = n + 1"


def transaction(bench, statement, end):
    """Milliseconds of the statement and the end: as the client sees it, and of a processor."""
    pid = bench.connection.info.backend_pid
    before = on_processor(pid)
    took = bench.milliseconds(lambda: bench.run("BEGIN", statement, end))
    return took, on_processor(pid) - before


def on_processor(pid):
    """Milliseconds that a process has run so far."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e6


def both(times):
    return " ".join(f"{time:.2f}" for time in times)


def median(times):
    """Of both numbers."""
    return [statistics.median(of) for of in zip(*times)]


def main():
    server = Server({"cmk_encrypt.local_keys": "on", "shared_preload_libraries": "cmk_encrypt",
                     "cmk_encrypt.tenant_call_budget": "0"})
    try:
        server.make_local_key("bench")
        with server.connect() as connection:
            bench = Bench(connection)
            bench.run("CREATE EXTENSION cmk_encrypt", "CREATE ROLE app", "SELECT cmk.register_tenant('acme', 'local:bench')",
                      "CREATE TABLE plain AS SELECT 0 AS n")
            taken = {call: {"COMMIT": [], "ROLLBACK": []} for call in [PLAIN, *CALLS]}
            for number in range(ACTS + 5):
                for call in [PLAIN, *CALLS.values()]:
                    for end in ("ROLLBACK", "COMMIT"):
                        took = transaction(bench, call, end)
                        name = next((name for name, sql in CALLS.items() if sql == call), PLAIN)
                        if number >= 5:  # the first make plans
                            taken[name][end].append(took)
            # All times are [seen, on a processor].
            found = {name: {end: median(times) for end, times in of.items()} for name, of in taken.items()}
            commit = [c - r for c, r in zip(found[PLAIN]["COMMIT"], found[PLAIN]["ROLLBACK"])]
            head(f"an act, ms, median of {ACTS}: its event alone, as the client sees it, and of a processor")
            show("a commit of one changed row, without the disk", both(commit))
            for name in CALLS:
                done, undone = found[name]["COMMIT"], found[name]["ROLLBACK"]
                event = [c - r - plain for c, r, plain in zip(done, undone, commit)]
                show(f"{name}, {done[0]:.2f} ms with its commit", both(event), "<= 1")
    finally:
        server.destroy()


if __name__ == "__main__":
    main()
