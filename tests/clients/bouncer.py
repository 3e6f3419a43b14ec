"""PgBouncer in front of a server, on a Unix socket, with one server connection for all clients."""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import psycopg

from server import until

PORT = 6432


class Bouncer:
    def __init__(self, server, role):
        # Where the OS user may be that it runs as: PgBouncer refuses to run as root.
        self.dir = Path(tempfile.mkdtemp(prefix="cmk_encrypt_bouncer."))
        self.log = self.dir / "log"
        (self.dir / "users").write_text(f'"{role}" ""\n')
        (self.dir / "ini").write_text(
            f"[databases]\n* = host={server.socket} port=5432\n"
            f"[pgbouncer]\nlisten_addr =\nlisten_port = {PORT}\nunix_socket_dir = {self.dir}\n"
            f"auth_type = trust\nauth_file = {self.dir}/users\nlogfile = {self.log}\n"
            "pool_mode = transaction\ndefault_pool_size = 1\n"
        )
        command, options = ["/usr/sbin/pgbouncer", "--quiet", self.dir / "ini"], {}
        if os.geteuid() == 0:
            user, group = server.owner()
            options = {"user": user, "group": group, "extra_groups": []}
            for path in (self.dir, *self.dir.iterdir()):
                os.chown(path, user, group)
        self.process = subprocess.Popen(command, cwd="/", stdin=subprocess.DEVNULL, **options)
        until((self.dir / f".s.PGSQL.{PORT}").exists, what="a socket of PgBouncer")

    def connect(self, database):
        # It hands a client's statements to any server connection, so none may be prepared.
        return psycopg.connect(
            host=str(self.dir),
            port=PORT,
            user=database.role,
            dbname=database.name,
            autocommit=True,
            prepare_threshold=None,
        )

    def close(self):
        self.process.terminate()
        self.process.wait(timeout=20)
        shutil.rmtree(self.dir)
