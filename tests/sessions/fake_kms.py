"""The fake KMS of tests/fake_kms: a real process that speaks HTTP, driven through its control paths."""

import base64
import contextlib
import json
import os
import subprocess
import urllib.request
import uuid
from pathlib import Path

from server import AMBIENT_ACCESS_KEY_ID, ROOT, until

TARGET = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
BINARY = Path(os.environ.get("FAKE_KMS", TARGET / "debug" / "fake_kms"))
ACCOUNT = "111122223333"
# Of the tenants themselves
OWNER_ACCESS_KEY_ID = "AKIAFAKEOWNER0000000"


class FakeKms:
    def __init__(self, directory):
        port_file = directory / "port"
        self.process = subprocess.Popen(
            [str(BINARY), "--port", "0", "--port-file", str(port_file), "--until-stdin-closes"],
            stdin=subprocess.PIPE, stdout=subprocess.DEVNULL,
        )
        self.port = int(until(lambda: port_file.exists() and port_file.read_text(), what="the fake KMS"))
        self.url = f"http://127.0.0.1:{self.port}"

    def close(self):
        self.process.stdin.close()
        self.process.wait(timeout=10)

    def _call(self, method, path, body=None, headers=None):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, headers or {}, method=method)
        with urllib.request.urlopen(request, timeout=10) as response:
            answer = response.read()
        return json.loads(answer) if answer else None

    def key(self, region="eu-central-1", **options):
        """A new key; its ARN."""
        return self._call("POST", "/_control/key", {"region": region, "account": ACCOUNT, **options})["arn"]

    def replica(self, arn, region="us-east-1"):
        """A replica of a multi-Region key; its ARN."""
        return self._call("POST", "/_control/replicate", {"arn": arn, "region": region})["arn"]

    def state(self, arn, state):
        self._call("POST", "/_control/key_state", {"arn": arn, "state": state})

    def trouble(self, arn, trouble):
        """What the custom key store of a key makes of calls from now on; None: it works."""
        self._call("POST", "/_control/key_store", {"arn": arn, "trouble": trouble})

    def deny(self, arn, deny=True, **options):
        self._call("POST", "/_control/deny", {"arn": arn, "deny": deny, **options})

    def principals(self, arn, allow):
        self._call("POST", "/_control/principals", {"arn": arn, "allow": allow})

    def role(self, external_id, allow=None):
        """A new role that may be assumed with this external id; its ARN."""
        arn = f"arn:aws:iam::{ACCOUNT}:role/cmk-{uuid.uuid4().hex[:12]}"
        self.trust(arn, external_id, allow)
        return arn

    def trust(self, role_arn, external_id, allow):
        """From now on these access key ids may assume the role; None is anybody."""
        trust = {"role_arn": role_arn, "external_id": external_id, "allow": allow}
        self._call("POST", "/_control/role", trust)

    def end_sessions(self, role_arn):
        """What STS has issued for this role has expired; how many sessions that ended."""
        return self._call("POST", "/_control/end_sessions", {"role_arn": role_arn})["ended"]

    @contextlib.contextmanager
    def access_keys(self, *ids):
        """During the block no other access key ids exist, but those of other servers and of tenants do."""
        allow = [*ids, AMBIENT_ACCESS_KEY_ID, OWNER_ACCESS_KEY_ID]
        try:
            self._call("POST", "/_control/access_keys", {"allow": allow})
            yield
        finally:
            self._call("POST", "/_control/access_keys", {"allow": None})

    @contextlib.contextmanager
    def fault(self, kind, arn=None, operation=None, times=None, **options):
        fault = {"kind": kind, "arn": arn, "operation": operation, "times": times, **options}
        self._call("POST", "/_control/fault", fault)
        try:
            yield
        finally:
            self.clear_faults()

    @contextlib.contextmanager
    def fault_after(self, calls, kind, arn=None, operation=None, **options):
        """The same fault, for all calls but the first ones."""
        for first, times in (({"kind": "delay", "millis": 0}, calls), ({"kind": kind, **options}, None)):
            if times != 0:
                fault = {"arn": arn, "operation": operation, "times": times, **first}
                self._call("POST", "/_control/fault", fault)
        try:
            yield
        finally:
            self.clear_faults()

    def clear_faults(self):
        """Also lets hanging requests go."""
        self._call("DELETE", "/_control/faults")

    def log(self, arn=None):
        """The requests so far, or those for one key, oldest first."""
        entries = self._call("GET", "/_control/log")
        return [entry for entry in entries if arn is None or entry["key_arn"] == arn]

    def calls(self, arn, operation="Decrypt"):
        return self.counters()["by_key"].get(arn, {}).get(operation, 0)

    def total(self, operation="Decrypt"):
        return self.counters()["by_operation"].get(operation, 0)

    def counters(self):
        return self._call("GET", "/_control/counters")

    def decrypt(self, arn, wrapped, context):
        """What the tenant's KMS itself would answer: the raw data key."""
        body = {
            "KeyId": arn,
            "CiphertextBlob": base64.b64encode(wrapped).decode(),
            "EncryptionContext": context,
        }
        headers = {
            "Content-Type": "application/x-amz-json-1.1",
            "X-Amz-Target": "TrentService.Decrypt",
            "Authorization": f"AWS4-HMAC-SHA256 Credential={OWNER_ACCESS_KEY_ID}/20260101/eu-central-1/kms/"
            "aws4_request, SignedHeaders=host, Signature=0",
        }
        return base64.b64decode(self._call("POST", "/", body, headers)["Plaintext"])
