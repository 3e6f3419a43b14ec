"""The figures of the failure drills, each beside what is asked. The session tests assert the same.

    drills.py [--outage SECONDS]
"""

import argparse
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "sessions"))

from crowd import DECRYPTED  # noqa: E402
from drill import Drill  # noqa: E402
from fake_kms import FakeKms  # noqa: E402
from figures import CROWD, measure_cold_start, measure_hang, measure_idle, measure_outage, measure_revocation  # noqa: E402
from gate import Gate  # noqa: E402
from server import Server  # noqa: E402
from shim import Shim  # noqa: E402

FAILURE_TTL = 1
OPERATION_TIMEOUT = 2


def show(what, measured="", asked=""):
    print(f"{what:<72} {measured:>16} {asked:>16}", flush=True)


def seconds(value):
    return f"{value:.2f} s"


def millis(value):
    return f"{value * 1e3:.1f} ms"


def cold_start(drill):
    seen = measure_cold_start(drill)
    show("200 cold connections, 100 rows each, KMS takes 50 ms: KMS calls", seen.calls, 1 if drill.preloaded else "<= 200")
    show("  the last has its answer after", seconds(seen.seconds), "<= 0.55 s" if drill.preloaded else "")


def revocation(drill):
    seen = measure_revocation(
        drill, lambda arn: drill.kms.state(arn, "Disabled"), lambda arn: drill.kms.state(arn, "Enabled"), 5, FAILURE_TTL
    )
    show(f"key disabled under load, hard TTL 5 s, {CROWD} warm backends: last value after", seconds(seen.dark_after),
         "<= 5 s")
    show("  enabled again: all read after", seconds(seen.back_after))
    show("  the other tenant's 99th percentile, before", millis(seen.p99_before))
    show("  and meanwhile", millis(seen.p99_during), f"<= {millis(seen.p99_before * 1.2)}")
    intervals = seen.span / (FAILURE_TTL * 0.75)
    most = 1 + intervals if drill.preloaded else CROWD * (1 + intervals)
    show(f"  KMS calls for the dead tenant in {seen.span:.1f} s (failure TTL {FAILURE_TTL} s)", seen.calls,
         f"<= {int(most)}")


def outage(drill, gate, length):
    readers = measure_outage(drill, gate, length)
    outcomes = readers.outcomes()
    queries = sum(outcomes.values())
    show(f"KMS down for {length:.0f} s with a TTL of 300 s: failed queries", queries - outcomes[DECRYPTED], 0)
    show(f"  of {queries:,}; the slowest took", millis(readers.slowest()))


def hang(drill):
    failed, cancelled = measure_hang(drill, OPERATION_TIMEOUT)
    show(f"KMS hung, operation timeout {OPERATION_TIMEOUT} s: a cold query fails with 58000 after", seconds(failed),
         f"<= {OPERATION_TIMEOUT + 0.5} s")
    show("  pg_cancel_backend takes", millis(cancelled), "<= 500 ms")


def idle(drill):
    late = measure_idle(drill, ttl=6)  # long enough to search the memory of all of them first
    show("copies of 20 idle sessions zeroed after their deadline, the latest by", millis(late), "<= 100 ms")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--outage", type=float, default=60, metavar="SECONDS", help="how long KMS is down")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        kms = FakeKms(Path(directory))
        gate = Gate(kms.port)
        shim = Shim()  # nobody could look into the memory of sleeping sessions
        for preloaded in (True, False):
            conf = {
                "cmk_encrypt.kms_endpoint_url": kms.url, "max_connections": "260",
                "shared_preload_libraries": "cmk_encrypt" if preloaded else "",
            }
            server = Server(conf, shim.env)
            try:
                drill = Drill(server, kms, preloaded)
                print()
                show("preloaded" if preloaded else "loaded by the first call", "measured", "asked")
                cold_start(drill)
                revocation(drill)
                outage(drill, gate, arguments.outage)
                hang(drill)
                idle(drill)
            finally:
                server.destroy()
        gate.close()
        shim.close()
        kms.close()


main()
