"""KMS calls, memory and system calls of one backend, against the fake KMS over HTTP, and over HTTPS for what the first
call takes. Prints a table."""

import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "sessions"))

from fake_kms import FakeKms  # noqa: E402
from server import Server  # noqa: E402
from tls_proxy import TlsProxy  # noqa: E402

ROWS = 1_000_000
TENANTS = 1_000
CACHE_SIZE = 100
BACKENDS = 9
SYSTEM_AUTHORITIES = Path("/etc/ssl/certs/ca-certificates.crt")  # of Debian


def private_kilobytes(pid):
    """Memory that this process wrote and shares with no other. Pages of files don't count: those of a library that
    was just installed are dirty without having been written by anybody who maps them."""
    total = dirty = 0
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        if line.startswith("Private_Dirty:"):
            dirty = int(line.split()[1])
        elif line.startswith("Anonymous:"):
            total += min(dirty, int(line.split()[1]))
    return total


def authorities(proxy):
    """The system's, and the one whom only the proxy's clients trust."""
    bundle = proxy.dir / "bundle.pem"
    bundle.write_text(SYSTEM_AUTHORITIES.read_text() + proxy.authority.read_text())
    bundle.chmod(0o644)
    return bundle


def show(what, measured, asked):
    print(f"{what:<62} {measured:>12} {asked:>14}")


def register(connection, kms, name):
    connection.execute("SELECT cmk.register_tenant(%s, %s)", (name, kms.key()))


def measure_calls(server, kms):
    with server.connect() as dba:
        register(dba, kms, "one")
        dba.execute("CREATE TABLE one AS SELECT cmk_encrypt('one', sha512(i::text::bytea)) v FROM generate_series(1, %s) i" % ROWS)
        for i in range(TENANTS):
            register(dba, kms, f"t{i}")
        dba.execute(f"CREATE TABLE many AS SELECT 't'||i t, cmk_encrypt('t'||i, 'x') v FROM generate_series(0, {TENANTS - 1}) i")

    with server.connect() as backend:
        before = kms.total()
        backend.execute("SELECT count(cmk_decrypt('one', v)) FROM one")
        show(f"KMS calls for {ROWS:,} rows of one tenant, cold backend", kms.total() - before, "1")
    with server.connect() as backend:
        for nth, asked in (("first", TENANTS), ("second", 0)):
            before = kms.total()
            backend.execute("SELECT count(cmk_decrypt(t, v)) FROM many")
            show(f"KMS calls for {TENANTS:,} tenants in one query, {nth} time", kms.total() - before, asked)


def measure_bound(server):
    with server.settings(cache_size=CACHE_SIZE), server.connect() as backend:
        backend.execute("SELECT count(cmk_decrypt(t, v)) FROM many")
        entries = backend.execute("SELECT entries FROM cmk.cache_stats").fetchone()[0]
        show(f"entries after {TENANTS:,} tenants with cache_size = {CACHE_SIZE}", entries, f"<= {CACHE_SIZE}")


def first_calls(server):
    """Milliseconds of the first and of the next KMS call of a new backend, and what the first one took of memory. The
    backend has loaded the library and its catalogs before."""
    with server.connect() as backend:
        pid = backend.info.backend_pid
        backend.execute("SELECT cmk_try_decrypt('one', 'x')")
        backend.execute("SELECT * FROM one LIMIT 1")
        before, took, gained = private_kilobytes(pid), [], []
        for _ in range(2):
            started = time.monotonic()
            backend.execute("SELECT cmk_decrypt('one', v) FROM one LIMIT 1")
            took.append((time.monotonic() - started) * 1e3)
            gained.append(private_kilobytes(pid) - before)
            backend.execute("SELECT cmk.evict('one')")
    return *took, gained[0]


def measure_first_call(server, endpoints):
    for url in endpoints:
        over = url.partition(":")[0]
        with server.settings(kms_endpoint_url=url):
            first, following, memory = zip(*(first_calls(server) for _ in range(BACKENDS)))
        show(f"first KMS call of a backend, {over}, ms", f"{min(first):.1f}", f"<= {min(following) + 40:.1f}")
        show(f"next KMS call of a backend, {over}, ms", f"{min(following):.1f}", "")
        show(f"private memory gained by the first KMS call, {over}, kB", max(memory), "<= 3072")


def count_system_calls(server):
    """strace attaches to a warm backend for one query; skipped, and said so, where it can't."""
    with server.connect() as backend:
        pid = backend.info.backend_pid
        counts = {}
        for expression in ("v", "cmk_decrypt('one', v)"):
            query = f"SELECT count({expression}) FROM (SELECT v FROM one LIMIT 50000) s"
            for _ in range(2):
                backend.execute(query)
            report = Path(tempfile.mkdtemp()) / "strace"
            try:
                tracer = subprocess.Popen(
                    ["strace", "-f", "-qq", "-o", str(report), "-p", str(pid)], stderr=subprocess.DEVNULL
                )
            except FileNotFoundError:
                show("system calls of 50,000 cache hits", "no strace", "0")
                return
            time.sleep(1)
            backend.execute(query)
            tracer.terminate()
            tracer.wait()
            counts[expression] = len(report.read_text().splitlines())
        hits = counts["cmk_decrypt('one', v)"] - counts["v"]
        show("system calls of 50,000 cache hits above a bare scan", hits, "0")


def main():
    with tempfile.TemporaryDirectory() as directory:
        kms = FakeKms(Path(directory))
        proxy = TlsProxy(kms.port)
        conf = {
            "cmk_encrypt.kms_endpoint_url": kms.url,
            "cmk_encrypt.cache_ttl": "1d",
            "shared_buffers": "512MB",
            "autovacuum": "off",
        }
        server = Server(conf, {"SSL_CERT_FILE": str(authorities(proxy))})
        try:
            server.execute("CREATE EXTENSION cmk_encrypt")
            server.execute("SELECT cmk.grant_access('*', 'postgres')")
            print()
            show("", "measured", "asked")
            measure_calls(server, kms)
            measure_bound(server)
            measure_first_call(server, (kms.url, proxy.url))
            count_system_calls(server)
        finally:
            server.destroy()
            proxy.close()
            kms.close()


main()
