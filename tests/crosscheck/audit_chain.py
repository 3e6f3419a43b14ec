"""The hash chain of cmk.audit_event, written from docs/audit.md alone."""

import hashlib

COLUMNS = (
    "tenant", "origin", "number", "at", "session_role", "acting_role", "client_address", "application_name",
    "database", "transaction", "act", "data_key", "before", "after", "kms_request_ids", "previous_hash",
)
START = bytes(32)


def field(value):
    """None, bytes, text, a number, or a list of texts."""
    if value is None:
        return b"\xff\xff\xff\xff"
    if isinstance(value, list):
        value = b"".join(field(text) for text in value)
    elif isinstance(value, int):
        value = value.to_bytes(8, "big", signed=True)
    elif isinstance(value, str):
        value = value.encode()
    return len(value).to_bytes(4, "big") + value


def event_hash(event):
    """Of a dict of COLUMNS: `at` in microseconds since the Unix epoch, `before` and `after` as they are written."""
    return hashlib.sha256(field("cmk_encrypt/v1/audit-event") + b"".join(field(event[name]) for name in COLUMNS)).digest()


def broken(events):
    """What is wrong with the events of one chain, in order, as (number, problem)."""
    found, before = [], None
    for event in events:
        if event["hash"] != event_hash(event):
            found.append((event["number"], "changed"))
        if before and event["number"] != before["number"] + 1:
            found.append((event["number"], "gap"))
        elif before and event["previous_hash"] != before["hash"]:
            found.append((event["number"], "forked"))
        before = event
    return found
