"""A streaming replica of another test server."""

import os
import subprocess

from server import Server, until


class Standby(Server):
    """A streaming replica of `primary`, made by pg_basebackup."""

    def __init__(self, primary, conf):
        self.primary = primary
        super().__init__({
            "unix_socket_directories": "", "cmk_encrypt.local_key_directory": str(primary.keys), **conf,
        })

    def _script(self, command, *arguments):
        if command == "start":
            self._copy_primary()
            # The copied configuration names the primary's socket.
            arguments = [a.replace("unix_socket_directories = ''", f"unix_socket_directories = '{self.socket}'")
                         for a in arguments]
        return super()._script(command, *arguments)

    def _copy_primary(self):
        uid, gid = self.owner()
        bindir = subprocess.check_output([os.environ["PG_CONFIG"], "--bindir"], text=True).strip()
        as_owner = ["setpriv", f"--reuid={uid}", f"--regid={gid}", "--init-groups"] if os.geteuid() == 0 else []
        subprocess.run(["rm", "-rf", str(self.data)], check=True)
        subprocess.run(
            [*as_owner, f"{bindir}/pg_basebackup", "-h", str(self.primary.socket), "-U", "postgres",
             "-D", str(self.data), "--write-recovery-conf", "--wal-method=stream", "--checkpoint=fast", "--no-sync"],
            check=True, cwd="/tmp", timeout=120,
        )


def replayed(pair):
    """Returns once the standby has replayed what the primary has written."""
    primary, standby = pair
    position = primary.execute("SELECT pg_current_wal_lsn()")[0][0]
    until(lambda: standby.execute(f"SELECT pg_last_wal_replay_lsn() >= '{position}'")[0][0], what="replay")
