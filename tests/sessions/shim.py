"""A server whose wall clock can be stepped and whose name resolution can be slowed down (preload/shim.c)."""

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

    def _write(self, resolve_millis=0, ahead_seconds=0):
        # In place: the servers have the file mapped.
        with open(self._orders, "r+b" if self._orders.exists() else "wb") as orders:
            orders.write(struct.pack("qq", resolve_millis, ahead_seconds))
        self._orders.chmod(0o644)

    @contextlib.contextmanager
    def slow_names(self, millis):
        self._write(resolve_millis=millis)
        try:
            yield
        finally:
            self._write()

    @contextlib.contextmanager
    def clock_ahead(self, seconds):
        self._write(ahead_seconds=seconds)
        try:
            yield
        finally:
            self._write()

    def close(self):
        shutil.rmtree(self.dir)
