"""What the tests of the audit trail share: events, and lines of the log."""

import json


def events(session, tenant, *columns):
    """The events of a tenant in their order, as tuples of these columns."""
    chosen = ", ".join(columns)
    return session.all(f"SELECT {chosen} FROM cmk.audit_event WHERE tenant = %s ORDER BY origin, number", str(tenant))


def lines(server, mark=0, **fields):
    """What the log says of acts from byte `mark` on, with these values."""
    found = []
    for line in server.log.read_bytes()[mark:].decode().splitlines():
        _, marked, text = line.partition("cmk_encrypt audit=")
        if marked:
            line = json.loads(text)
            if all(line.get(name) == value for name, value in fields.items()):
                found.append(line)
    return found


def mark(server):
    return server.log.stat().st_size


def unguarded(session, *changes):
    """Changes the trail as a superuser can who switches its guards off."""
    tables = ("audit_event", "audit_chain")
    for table in tables:
        session.run(f"ALTER TABLE cmk.{table} DISABLE TRIGGER USER")
    for change in changes:
        session.run(change)
    for table in tables:
        session.run(f"ALTER TABLE cmk.{table} ENABLE ALWAYS TRIGGER guard")
        session.run(f"ALTER TABLE cmk.{table} ENABLE ALWAYS TRIGGER guard_row")


def kms_lines(server, start=0, **fields):
    """What the log says of requests to KMS from byte `start` on, with these values."""
    found = []
    for line in server.log.read_bytes()[start:].decode().splitlines():
        _, marked, text = line.partition("cmk_encrypt kms=")
        if marked:
            line = json.loads(text)
            if all(line.get(name) == value for name, value in fields.items()):
                found.append(line)
    return found
