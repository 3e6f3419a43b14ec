"""One server for the clients that `make test-clients` installs."""

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).resolve().parents[1] / "sessions"))

from server import Server  # noqa: E402 (found by the path above)


@pytest.fixture(scope="session")
def server():
    server = Server({"cmk_encrypt.local_keys": "on"})
    try:
        server.make_local_key("shared")
        yield server
    finally:
        server.destroy()
