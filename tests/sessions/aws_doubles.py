"""What stands around a server in AWS, on this machine: the metadata service of an instance, the credentials of a
container, an STS for web identity tokens, a forward proxy."""

import asyncio
import base64
import contextlib
import json
import socket
import threading
from http.server import BaseHTTPRequestHandler
from urllib.parse import parse_qs

from gate import pump
from tls_proxy import Quiet

EXPIRES = "2999-01-01T00:00:00Z"
# Not of the fake KMS's own sessions, so it takes them for users.
IMDS, CONTAINER, WEB = "AKIAFAKEIMDS00000000", "AKIAFAKECONTAINER000", "AKIAFAKEWEB000000000"


class Sources:
    """IMDSv2, container credentials and AssumeRoleWithWebIdentity on one port; may be told to hang or to refuse."""

    def __init__(self):
        self.asked = []
        self.mode = "answer"
        self._let_go = threading.Event()
        self._server = Quiet(("127.0.0.1", 0), self._handler())
        self.port = self._server.server_port
        self.url = f"http://127.0.0.1:{self.port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    @contextlib.contextmanager
    def told_to(self, mode):
        """`hang`, `fail` (500) or `deny` (403)."""
        self.mode = mode
        self._let_go.clear()
        try:
            yield
        finally:
            self.mode = "answer"
            self._let_go.set()

    def _answer(self, method, path, headers, body):
        keys = lambda id, token: {  # noqa: E731
            "AccessKeyId": id, "SecretAccessKey": "not-a-secret", token: "fake-token", "Expiration": EXPIRES,
        }
        roles = "/latest/meta-data/iam/security-credentials/"
        if method == "PUT" and path == "/latest/api/token":
            return "fake-metadata-token", {"x-aws-ec2-metadata-token-ttl-seconds": "21600"}
        if path == roles and headers["x-aws-ec2-metadata-token"] == "fake-metadata-token":
            return "cmk-role", {}
        if path == f"{roles}cmk-role" and headers["x-aws-ec2-metadata-token"] == "fake-metadata-token":
            return json.dumps({"Code": "Success", "Type": "AWS-HMAC", **keys(IMDS, "Token")}), {}
        if path == "/container" and headers["Authorization"] in (None, "fake-pod-token"):
            return json.dumps(keys(CONTAINER, "Token")), {}
        form = {name: value[0] for name, value in parse_qs(body).items()}
        if form.get("Action") == "AssumeRoleWithWebIdentity" and form["WebIdentityToken"] == "fake.web.token":
            session = "".join(f"<{name}>{value}</{name}>" for name, value in keys(WEB, "SessionToken").items())
            name = "AssumeRoleWithWebIdentity"
            return (
                f'<{name}Response xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><{name}Result>'
                f"<Credentials>{session}</Credentials></{name}Result></{name}Response>"
            ), {"Content-Type": "text/xml"}
        return None, {}

    def _handler(double):
        class Handler(BaseHTTPRequestHandler):
            def work(self):
                body = self.rfile.read(int(self.headers["Content-Length"] or 0)).decode()
                double.asked.append(f"{self.command} {self.path}")
                answer, headers = double._answer(self.command, self.path, self.headers, body)
                status = 404 if answer is None else 200
                if double.mode == "hang":
                    double._let_go.wait(20)
                elif double.mode != "answer":
                    status, answer = (500, "no") if double.mode == "fail" else (403, DENIED)
                    headers = {}
                content = (answer or "").encode()
                self.send_response(status)
                for name, value in {**headers, "Content-Length": str(len(content))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(content)

            do_GET = do_PUT = do_POST = work

            def log_message(self, *arguments):
                pass

        return Handler

    def close(self):
        self._let_go.set()
        self._server.shutdown()
        self._server.server_close()


DENIED = (
    '<ErrorResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><Error><Type>Sender</Type>'
    "<Code>AccessDenied</Code><Message>foreign text</Message></Error><RequestId>fake-request-1</RequestId>"
    "</ErrorResponse>"
)


class ForwardProxy:
    """Answers CONNECT by carrying on to one port, whatever the name is, and knows which names were asked for."""

    PASSWORD = "not-a-password"

    def __init__(self, upstream):
        self.targets = []
        self.refuses = False
        self._upstream = upstream
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, daemon=True).start()
        self._listener = asyncio.run_coroutine_threadsafe(
            asyncio.start_server(self._carry, "127.0.0.1", 0), self._loop
        ).result(timeout=10)
        self.port = self._listener.sockets[0].getsockname()[1]
        self.url = f"http://user:{self.PASSWORD}@127.0.0.1:{self.port}"

    async def _carry(self, reader, writer):
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        method, target, _ = head.split(" ", 2)
        self.targets.append(target)
        known = base64.b64encode(f"user:{self.PASSWORD}".encode()).decode()
        if method != "CONNECT" or f"Basic {known}" not in head or self.refuses:
            writer.write(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
            writer.close()
            return
        upstream_reader, upstream_writer = await asyncio.open_connection("127.0.0.1", self._upstream)
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        await asyncio.gather(pump(reader, upstream_writer), pump(upstream_reader, writer))

    def close(self):
        self._loop.call_soon_threadsafe(self._listener.close)
        self._loop.call_soon_threadsafe(self._loop.stop)


@contextlib.contextmanager
def silent_port():
    """Connections are made, and nothing is ever said on them."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listener:
        yield listener.getsockname()[1]
