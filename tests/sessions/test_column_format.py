"""What a protected column stores and prints is the published format, read and written without the extension."""

import column
import pytest
from local_key import open_stored, read_local_key, unwrap_local

from support import fails

LABEL = "users.ssn"
VALUES = {
    "text": ("čeština 🔐", "čeština 🔐".encode()),
    "empty text": ("", b""),
    "bytea": (b"\x00\xc1\xff", b"\x00\xc1\xff"),
    # As PostgreSQL prints it: sorted by the length of the key, a space behind colons and commas.
    "jsonb": ('{"long":[1,2],"n":null}', b'{"n": null, "long": [1, 2]}'),
}


@pytest.fixture
def acme(local_tenant):
    return local_tenant().name


@pytest.fixture
def rows(dba, acme):
    """The tenant's data keys, as they stand in the registry."""
    return dba.all(
        "SELECT t.key_uri, k.wrapped, k.commitment FROM cmk.tenant t JOIN cmk.data_key k USING (tenant)"
        " WHERE tenant = %s",
        acme,
    )


@pytest.fixture
def dek(server, acme, rows):
    ((uri, wrapped, _),) = rows
    return unwrap_local(read_local_key(server.keys, uri), acme, wrapped)


@pytest.mark.parametrize("kind", VALUES)
def test_what_is_stored_opens_by_the_published_format_alone(server, app, acme, rows, kind):
    value, plaintext = VALUES[kind]
    sealed, printed = app.row(
        "SELECT cmk.envelope(value), format('%%s', value) FROM"
        f" (SELECT cmk.seal_value(%s::{kind.split()[-1]}, %s, %s) AS value OFFSET 0) AS sealed",
        value,
        acme,
        LABEL,
    )
    assert open_stored(server.keys, acme, rows, sealed) == plaintext
    assert printed == column.armor(sealed)
    envelope = column.ColumnEnvelope.parse(sealed)
    assert envelope.tenant_tag == column.tenant_tag(acme)
    assert envelope.column_tag == column.column_tag(LABEL)


@pytest.mark.parametrize("token", [b"", bytes(range(20))], ids=["suite 2", "suite 3"])
def test_what_was_sealed_elsewhere_is_read(app, acme, dek, token):
    sealed = column.seal_column(dek, acme, LABEL, b"of another program", bytes(24), token)
    app.run("SET cmk_encrypt.input = envelope")
    read = "SELECT cmk.envelope({0}), {0}::text, cmk.sealed({0}, %s, %s, %s)"
    options = "search" if token else None
    query = read.format(f"'{column.armor(sealed)}'::cmk_text")
    assert app.row(query, LABEL, acme, options) == (sealed, "of another program", True)


DAMAGES = {
    "cut": lambda text: text[:-1],
    "padded": lambda text: text + "=",
    "wrapped": lambda text: text[:30] + "\n" + text[30:],
    "changed": lambda text: text[:30] + ("A" if text[30] != "A" else "B") + text[31:],
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=list(DAMAGES))
def test_damaged_armor_is_no_envelope(app, acme, dek, damage):
    text = damage(column.armor(column.seal_column(dek, acme, LABEL, b"value", bytes(24))))
    app.run("SET cmk_encrypt.input = envelope")
    with fails("22P02", "armor_malformed"):
        app.one("SELECT %s::cmk_text::text", text)
    app.run("SET cmk_encrypt.input = text")
    assert app.one("SELECT %s::cmk_text::text", text) == text
