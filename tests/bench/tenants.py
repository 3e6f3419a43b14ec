"""Registers, verifies and rotates many tenants, a transaction each, in one session and in several at once, and prints how
long that took: with local keys, and against the fake KMS over HTTP, which answers in ANSWER milliseconds (5), as one of
AWS does nearby. Each commit waits for the disk. TENANTS in the environment changes how many (10000), SESSIONS how many
sessions there are at once (8).

What bounds it: one session waits for KMS, call after call, and for the disk; several wait at the same time, until they
use up the processors, or, on few tenants, wait for each other's commits.
"""

import os
import sys
import tempfile
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "sessions"))

from fake_kms import FakeKms  # noqa: E402
from server import Server  # noqa: E402

TENANTS = int(os.environ.get("TENANTS", "10000"))
SESSIONS = int(os.environ.get("SESSIONS", "8"))
ANSWER = int(os.environ.get("ANSWER", "5"))

REGISTER = "SELECT cmk.register_tenant(%s, %s)"
VERIFY = "SELECT count(*) FROM cmk.verify_tenant(%s) WHERE status = 'failed'"
ROTATE = "SELECT cmk.rotate_tenant(%s)"


def processor_seconds(server):
    """What all processes of the server have used so far."""
    ticks = os.sysconf("SC_CLK_TCK")
    total = 0
    for pid in (server.pid, *server.children()):
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        total += sum(map(int, fields[11:15]))
    return total / ticks


def run(server, statement, arguments, sessions):
    """Seconds that it took, and of processors."""
    connections = [server.connect() for _ in range(sessions)]
    faults = []

    def work(connection, mine):
        try:
            for each in mine:
                connection.execute(statement, each)
        except Exception as fault:
            faults.append(fault)

    threads = [threading.Thread(target=work, args=(connection, arguments[number::sessions]))
               for number, connection in enumerate(connections)]
    used, began = processor_seconds(server), time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds, used = time.monotonic() - began, processor_seconds(server) - used
    for connection in connections:
        connection.close()
    if faults:
        raise faults[0]
    return seconds, used


def timed(what, server, kms, statement, arguments, sessions):
    calls = kms.counters()["total"]
    seconds, used = run(server, statement, arguments, sessions)
    count = len(arguments)
    calls = (kms.counters()["total"] - calls) / count
    print(f"{what:<44} {sessions:>2} {seconds:>8.1f} s {seconds / count * 1e3:>8.2f} ms each"
          f" {used / count * 1e3:>7.2f} ms of a processor {calls:>5.1f} KMS calls each", flush=True)


def measure(server, kms, provider, key):
    for sessions in (1, SESSIONS):
        names = [f"{provider}-{sessions}-{n}" for n in range(TENANTS)]
        keys = [key() for _ in names]
        timed(f"register {TENANTS:,} tenants, {provider}", server, kms, REGISTER, list(zip(names, keys)), sessions)
        for what, statement in (("verify", VERIFY), ("rotate", ROTATE)):
            timed(f"{what} {TENANTS:,} tenants, {provider}", server, kms, statement, [(name,) for name in names], sessions)


def main():
    with tempfile.TemporaryDirectory() as directory:
        kms = FakeKms(Path(directory))
        server = Server({
            "shared_preload_libraries": "cmk_encrypt", "cmk_encrypt.local_keys": "on", "fsync": "on",
            "cmk_encrypt.kms_endpoint_url": kms.url, "cmk_encrypt.sts_endpoint_url": kms.url, "cmk_encrypt.shared_keyring_size": "16384",
        })
        try:
            server.make_local_key("bench")
            server.execute("CREATE EXTENSION cmk_encrypt")
            print(f"\n{'':<44} sessions")
            measure(server, kms, "local", lambda: "local:bench")
            with kms.fault("delay", millis=ANSWER):
                measure(server, kms, "fake KMS", kms.key)
        finally:
            server.destroy()
            kms.close()


if __name__ == "__main__":
    main()
