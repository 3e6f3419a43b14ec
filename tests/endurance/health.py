"""How the server's processes are: threads, memory, open files, and what the log says."""

import re
from pathlib import Path

BAD_LINES = re.compile(r"was terminated by signal|exited with exit code (?!1\b)|PANIC:|panicked at|stuck|XX000|TRAP:")


def processes(server):
    """{process id: what it is} of the postmaster and its children."""
    rows = server.execute("SELECT pid, backend_type FROM pg_stat_activity WHERE pid <> pg_backend_pid()")
    return {server.pid: "postmaster", **dict(rows)}


def threads(pid):
    return len(list(Path(f"/proc/{pid}/task").iterdir()))


def files(pid):
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def anonymous_kilobytes(pid):
    """Memory of the process itself. "Private" would count pages of the shared buffers that only it has touched."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Anonymous:"))


def measure(pids):
    """{process id: (kB of memory, open files)}"""
    return {pid: (anonymous_kilobytes(pid), files(pid)) for pid in pids}


def growth(before, after):
    """By how much the processes that are still there grew: {process id: (kB of memory, open files)}"""
    return {pid: tuple(now - then for now, then in zip(after[pid], before[pid])) for pid in before if pid in after}


def bad_lines(log):
    return [line for line in log.read_text().splitlines() if BAD_LINES.search(line)]
