"""HTTPS in front of the fake KMS, with a certificate of its own that only its clients trust."""

import contextlib
import datetime
import http.client
import ipaddress
import shutil
import ssl
import sys
import tempfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


# Whose public endpoints the certificate is good for, too: for what comes through a forward proxy.
REGIONS = ("eu-central-1", "eu-west-1", "us-east-1")


class TlsProxy:
    """Terminates TLS, keeps connections alive as KMS does, passes answers on as they come, and counts the requests."""

    def __init__(self, port):
        self.requests = 0
        # Where the server's OS user may read it.
        self.dir = Path(tempfile.mkdtemp(prefix="cmk_encrypt_tls."))
        self.dir.chmod(0o755)
        self.authority = self.dir / "authority.pem"
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certify(self.authority, self.dir / "server.pem"))
        self._server = Quiet(("127.0.0.1", 0), self._handler(port))
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True, do_handshake_on_connect=False)
        self.port = self._server.server_port
        self.url = f"https://localhost:{self.port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def _handler(proxy, port):
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"  # keep-alive
            disable_nagle_algorithm = True  # else the body of an answer comes 40 ms after its header

            def do_POST(self):
                proxy.requests += 1
                body = self.rfile.read(int(self.headers["Content-Length"]))
                upstream = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
                with contextlib.closing(upstream):
                    upstream.request("POST", self.path, body, dict(self.headers))
                    answer = upstream.getresponse()
                    self.send_response_only(answer.status)
                    for name in ("Content-Type", "Content-Length"):
                        self.send_header(name, answer.headers[name])
                    self.end_headers()
                    while content := answer.read1(65536):
                        self.wfile.write(content)

            def log_message(self, *arguments):
                pass

        return Handler

    def close(self):
        self._server.shutdown()
        self._server.server_close()
        shutil.rmtree(self.dir)


class Quiet(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request, client_address):
        """A client that went away, and a call that hangs, are what tests want to see."""
        if not isinstance(sys.exception(), (ConnectionError, TimeoutError, ssl.SSLError)):
            super().handle_error(request, client_address)


def certify(authority_path, server_path):
    """Writes an authority's certificate, and a key and certificate for this machine; the latter's path."""
    ca_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    ca_name, name = common_name("cmk_encrypt test authority"), common_name("localhost")
    authority = certificate(ca_name, ca_name, ca_key).add_extension(x509.BasicConstraints(True, None), True)
    names = ["localhost", *(f"*.{region}.{domain}" for region in REGIONS for domain in ("amazonaws.com", "api.aws"))]
    addresses = [*map(x509.DNSName, names), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    server = certificate(name, ca_name, key).add_extension(x509.SubjectAlternativeName(addresses), False)
    authority_path.write_bytes(pem(authority, ca_key))
    server_path.touch(mode=0o600)
    server_path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        + pem(server, ca_key)
    )
    return server_path


def common_name(text):
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def certificate(subject, issuer, key):
    now, hour = datetime.datetime.now(datetime.UTC), datetime.timedelta(hours=1)
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(key.public_key())
    return builder.serial_number(x509.random_serial_number()).not_valid_before(now - hour).not_valid_after(now + hour)


def pem(builder, signer):
    return builder.sign(signer, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
