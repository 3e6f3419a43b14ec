"""A mixed load with random faults. Exits with 1 if anything happened that must not.

    endurance.py --seconds 3600 [--seed 1] [--lazy]

What must not happen: a crash, a backend that hangs, a thread that is left over, memory or open files that grow, a
plaintext that is not the one sealed, an error that no fault explains, a data key in use beyond the hard TTL after its
owner took the key away.
"""

import argparse
import contextlib
import random
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "sessions"))

from chaos import Others, Owners  # noqa: E402
from fake_kms import FakeKms  # noqa: E402
from health import bad_lines, growth, measure, processes, threaded  # noqa: E402
from load import IDS, Findings, Watched, Worker, plaintext  # noqa: E402
from server import Server, until  # noqa: E402

TENANTS = 6
WORKERS = 24
TTL = 3.0
OPERATION_TIMEOUT = 1.0
# A wait for another's call, which may take over at last, and then its own call.
LONGEST_ANSWER = 2 * (OPERATION_TIMEOUT + 1) + 3
MEMORY_KB = 4096
FILES = 8


def configuration(kms, lazy):
    settings = {
        "kms_endpoint_url": kms.url, "sts_endpoint_url": kms.url, "cache_ttl": f"{TTL}s", "failure_ttl": "300ms",
        "kms_attempt_timeout": "500ms", "kms_operation_timeout": f"{OPERATION_TIMEOUT}s", "monitor_databases": "postgres",
        "monitor_interval": "2s", "tenant_call_budget": "3000",
    }
    conf = {f"cmk_encrypt.{name}": value for name, value in settings.items()}
    return {**conf, "shared_preload_libraries": "" if lazy else "cmk_encrypt", "log_error_verbosity": "verbose"}


def prepare(server, kms):
    tenants = [Watched(f"tenant{n}", kms.key()) for n in range(TENANTS)]
    with server.connect() as dba:
        dba.execute("CREATE EXTENSION cmk_encrypt")
        dba.execute("SELECT cmk.grant_access('*', 'postgres')")
        dba.execute("CREATE TABLE value (tenant text, id integer, sealed bytea, PRIMARY KEY (tenant, id))")
        for tenant in tenants:
            dba.execute("SELECT cmk.register_tenant(%s, %s)", (tenant.name, tenant.key_uri))
            for id in range(IDS):
                dba.execute("INSERT INTO value VALUES (%s, %s, cmk_encrypt(%s, %b, int4send(%s)))",
                            (tenant.name, id, tenant.name, plaintext(tenant.name, id), id))
    return tenants


def run(server, kms, seconds, seed):
    """What must not have happened."""
    tenants, findings = prepare(server, kms), Findings(TTL)
    started = server.execute("SELECT pg_postmaster_start_time()")
    workers = [Worker(server, tenants, findings, f"{seed}/{n}", veteran=n % 2 == 0) for n in range(WORKERS)]
    chaos = [kind(server, kms, tenants, workers, random.Random(f"{seed}/{kind.__name__}")) for kind in (Owners, Others)]
    # Caches of PostgreSQL and of the AWS SDK are full by then.
    time.sleep(seconds / 3)
    # Whoever chaos doesn't touch, and what serves them all.
    serving = [pid for pid, title in processes(server).items() if "[local]" not in title]
    before = measure([worker.pid for worker in workers if worker.veteran] + serving)
    time.sleep(seconds * 2 / 3)
    for trouble in chaos:
        trouble.stop()
    hung = [worker.pid for worker in workers if not worker.stop()]
    bad = [f"backend {pid} hangs" for pid in hung] + findings.wrong
    with contextlib.suppress(AssertionError):
        # Helper threads of a backend (DNS) go a moment after their work.
        until(lambda: not threaded(server), timeout=5)
    bad += [f"{title} has {count} threads" for title, count in threaded(server).items()]
    titles, grown = processes(server), growth(before, measure(before))
    bad += [f"{titles[pid]} {pid} grew by {kilobytes} kB and {files} open files"
            for pid, (kilobytes, files) in grown.items() if kilobytes > MEMORY_KB or files > FILES]
    if findings.slowest > LONGEST_ANSWER:
        bad.append(f"an answer took {findings.slowest:.1f} s")
    if server.execute("SELECT pg_postmaster_start_time()") != started:
        bad.append("the server was restarted")
    bad += bad_lines(server.log)
    for worker in workers:
        worker.close()

    print(f"queries        {sum(findings.outcomes.values()):,}: {dict(findings.outcomes.most_common())}")
    print(f"past the TTL   {findings.after_the_end:,} queries for a key that its owner has taken away")
    print(f"faults         {dict(sum((trouble.done for trouble in chaos), Counter()))}")
    print(f"KMS calls      {kms.counters()['total']:,}")
    print(f"slowest answer {findings.slowest:.2f} s")
    print(f"most growth    {max(kb for kb, _ in grown.values())} kB, {max(n for _, n in grown.values())} open files")
    return bad


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1_000_000))
    parser.add_argument("--lazy", action="store_true", help="without shared_preload_libraries")
    arguments = parser.parse_args()
    print(f"seed           {arguments.seed}", flush=True)
    with tempfile.TemporaryDirectory() as directory:
        kms = FakeKms(Path(directory))
        server = Server(configuration(kms, arguments.lazy), {"RUST_BACKTRACE": "0"})
        try:
            bad = run(server, kms, arguments.seconds, arguments.seed)
        finally:
            server.destroy()
            kms.close()
    print(f"bad            {len(bad)}")
    for what in bad[:50]:
        print(f"  {what}")
    sys.exit(bool(bad))


main()
