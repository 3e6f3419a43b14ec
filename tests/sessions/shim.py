"""A server whose wall clock can be stepped, whose name resolution can be slowed down and whose memory can be looked
into (preload/shim.c)."""

import contextlib
import shutil
import struct
import subprocess
import tempfile
from pathlib import Path

SOURCE = Path(__file__).parent / "preload" / "shim.c"


class Shim:
    def __init__(self):
        # Where the server's OS user may read it.
        self.dir = Path(tempfile.mkdtemp(prefix="cmk_encrypt_shim."))
        self.dir.chmod(0o755)
        library = self.dir / "shim.so"
        command = ["cc", "-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-o", library, SOURCE, "-ldl"]
        subprocess.run(command, check=True)
        self._orders = self.dir / "orders"
        self._write()
        self.env = {"LD_PRELOAD": str(library), "CMK_SHIM": str(self._orders)}

    def _write(self, resolve_millis=0, ahead_seconds=0, take_signal=0):
        # In place: the servers have the file mapped.
        with open(self._orders, "r+b" if self._orders.exists() else "wb") as orders:
            orders.write(struct.pack("qqq", resolve_millis, ahead_seconds, take_signal))
        self._orders.chmod(0o644)

    @contextlib.contextmanager
    def _ordered(self, **orders):
        self._write(**orders)
        try:
            yield
        finally:
            self._write()

    def slow_names(self, millis):
        return self._ordered(resolve_millis=millis)

    def clock_ahead(self, seconds):
        return self._ordered(ahead_seconds=seconds)

    def take_signal(self, number):
        """Whoever resolves a name loses this real-time signal, counted from SIGRTMIN."""
        return self._ordered(take_signal=number)

    def close(self):
        shutil.rmtree(self.dir)
