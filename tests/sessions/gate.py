"""A TCP port in front of the fake KMS that can be shut, as a KMS that is down."""

import asyncio
import contextlib
import threading


class Gate:
    """Open, it forwards connections. Shut, the port refuses them, and those that were open break."""

    def __init__(self, port):
        self._upstream = port
        self._transports = set()
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, daemon=True).start()
        self.port = 0
        self.open()
        self.url = f"http://127.0.0.1:{self.port}"

    def _do(self, work):
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout=10)

    def open(self):
        async def work():
            self._listener = await asyncio.start_server(self._carry, "127.0.0.1", self.port)
            self.port = self._listener.sockets[0].getsockname()[1]

        self._do(work())

    def shut(self):
        async def work():
            self._listener.close()
            for transport in self._transports:
                transport.abort()

        self._do(work())

    @contextlib.contextmanager
    def down(self):
        self.shut()
        try:
            yield
        finally:
            self.open()

    async def _carry(self, reader, writer):
        upstream_reader, upstream_writer = await asyncio.open_connection("127.0.0.1", self._upstream)
        transports = {writer.transport, upstream_writer.transport}
        self._transports |= transports
        try:
            await asyncio.gather(pump(reader, upstream_writer), pump(upstream_reader, writer))
        finally:
            self._transports -= transports

    def close(self):
        self.shut()
        self._loop.call_soon_threadsafe(self._loop.stop)


async def pump(reader, writer):
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(65536):
            writer.write(data)
    writer.close()
