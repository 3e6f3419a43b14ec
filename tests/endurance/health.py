"""How the server's processes are: threads, memory, open files, and what the log says."""

import contextlib
import re
from pathlib import Path

TABLE = re.compile(r"/(base|global)/[0-9]")
BAD_LINES = re.compile(r"was terminated by signal|exited with exit code (?!1\b)|PANIC:|panicked at|stuck|XX000|TRAP:")


def processes(server):
    """{process id: title} of the postmaster and its children."""
    return {server.pid: "postmaster", **server.children()}


def threaded(server):
    """{title and process id: number of threads} of the processes that have more than one."""
    counts = {}
    for pid, title in processes(server).items():
        with contextlib.suppress(FileNotFoundError):  # it has just gone
            counts[f"{title} {pid}"] = len(list(Path(f"/proc/{pid}/task").iterdir()))
    return {title: count for title, count in counts.items() if count > 1}


def files(pid):
    """How many are open, but for those of tables: PostgreSQL keeps as many of them open as processes come to read,
    the I/O workers of version 18 too."""
    opened = []
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # it has just been closed
            opened.append(str(descriptor.readlink()))
    return sum(not TABLE.search(name) for name in opened)


def anonymous_kilobytes(pid):
    """Memory of the process itself. "Private" would count pages of the shared buffers that only it has touched."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Anonymous:"))


def measure(pids):
    """{process id: (kB of memory, open files)} of those that are still there."""
    measured = {}
    for pid in pids:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            measured[pid] = anonymous_kilobytes(pid), files(pid)
    return measured


def growth(before, after):
    """By how much the processes that are still there grew: {process id: (kB of memory, open files)}"""
    return {pid: tuple(now - then for now, then in zip(after[pid], before[pid])) for pid in before if pid in after}


def bad_lines(log):
    return [line for line in log.read_text().splitlines() if BAD_LINES.search(line)]
