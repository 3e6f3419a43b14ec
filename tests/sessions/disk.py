"""A server whose disk fills up on command (preload/disk.c). No file system is mounted: it works for any OS user, and in
containers."""

import contextlib
import shutil
import subprocess
import tempfile
from pathlib import Path

SOURCE = Path(__file__).parent / "preload" / "disk.c"
SIZE = 4096


class Disk:
    def __init__(self):
        # Where the server's OS user may read it.
        self.dir = Path(tempfile.mkdtemp(prefix="cmk_encrypt_disk."))
        self.dir.chmod(0o755)
        library = self.dir / "disk.so"
        command = ["cc", "-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-o", library, SOURCE, "-ldl"]
        subprocess.run(command, check=True)
        self._orders = self.dir / "orders"
        self._orders.write_bytes(bytes(SIZE))
        self._orders.chmod(0o644)
        self.env = {"LD_PRELOAD": str(library), "CMK_DISK": str(self._orders)}

    def _write(self, directory):
        # In place: the servers have the file mapped.
        with open(self._orders, "r+b") as orders:
            orders.write(str(directory).encode().ljust(SIZE, b"\0"))

    @contextlib.contextmanager
    def full(self, directory):
        """No file below the directory grows during the block."""
        self._write(directory)
        try:
            yield
        finally:
            self._write("")

    def close(self):
        shutil.rmtree(self.dir)
