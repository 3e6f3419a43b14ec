"""What tests of pg_upgrade share: a server that it fills from another one.

The new server is of the same PostgreSQL, or of the one whose pg_config UPGRADE_PG_CONFIG names."""

import contextlib
import os
import subprocess
from unittest import mock

from server import Server


@contextlib.contextmanager
def newer():
    """Servers and programs of the block are those of the PostgreSQL to upgrade to."""
    with mock.patch.dict(os.environ, PG_CONFIG=os.environ.get("UPGRADE_PG_CONFIG", os.environ["PG_CONFIG"])):
        yield


class Upgraded(Server):
    """A server that pg_upgrade fills from `old`, which is stopped for it. Its settings hold during that, too."""

    def __init__(self, old, conf, *options):
        self.old, self.old_bin, self.options = old, os.path.dirname(Server.program("postgres")), options
        with newer():
            super().__init__({"cmk_encrypt.local_key_directory": str(old.keys), **conf})

    @staticmethod
    def has_checksums(pg_controldata, data):
        said = subprocess.run([pg_controldata, data], stdout=subprocess.PIPE, text=True, check=True, timeout=60)
        return "checksum version:           0" not in said.stdout

    def _script(self, command, *arguments):
        if command == "start":
            self.old.stop()
            with open(self.data / "conf.d" / "start.conf", "w") as conf:
                conf.write("\n".join(line for flag, line in zip(arguments[::2], arguments[1::2]) if flag == "--conf"))
            os.chown(self.data / "conf.d" / "start.conf", *self.owner())
            self._upgrade()
        return super()._script(command, *arguments)

    def _upgrade(self):
        uid, gid = self.owner()
        as_owner = ["setpriv", f"--reuid={uid}", f"--regid={gid}", "--init-groups"] if os.geteuid() == 0 else []
        # From PostgreSQL 18 on a new server has them, and pg_upgrade wants both alike.
        if self.has_checksums(self.program("pg_controldata"), self.data) and not self.has_checksums(
            os.path.join(self.old_bin, "pg_controldata"), self.old.data
        ):
            subprocess.run([*as_owner, self.program("pg_checksums"), "--disable", "-D", self.data],
                           cwd=self.dir, stdout=subprocess.DEVNULL, check=True, timeout=60)
        done = subprocess.run(
            [*as_owner, self.program("pg_upgrade"), "-b", self.old_bin, "-d", self.old.data,
             "-D", self.data, "-U", "postgres", "-s", self.socket, "--no-sync", *self.options],
            cwd=self.dir, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=120,
        )
        assert done.returncode == 0, done.stdout.decode()

    def upgrade_log(self):
        """What the servers said while pg_upgrade ran them; it takes the option --retain."""
        return "".join(path.read_text() for path in (self.data / "pg_upgrade_output.d").rglob("pg_upgrade_server.log"))
