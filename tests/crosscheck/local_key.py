"""The wrapped data keys of the local provider, read and written without the extension's code.

    key file = DIR/NAME.key, 32 raw bytes
    wrapped  = 0x01 || nonce[24] || XAES-256-GCM(key = key file, nonce, aad = context, DEK)[48]
    context  = {"cmk_encrypt":"v1","purpose":PURPOSE,"tenant":TENANT} as canonical JSON: keys sorted,
               no spaces, UTF-8 without \\u escapes where JSON does not require them
    PURPOSE  = values or index; dek in vectors from before the first release
"""

import json
from pathlib import Path

from envelope import (
    KEY_LEN,
    NONCE_LEN,
    TAG_LEN,
    EnvelopeError,
    xaes_open,
    xaes_seal,
)
from registry import DataKey, open_from_registry

FORMAT_1 = 0x01
WRAPPED_LEN = 1 + NONCE_LEN + KEY_LEN + TAG_LEN


VALUES = "values"


def encryption_context(tenant: str, purpose: str = VALUES) -> bytes:
    """The context as the provider binds it to a wrapped data key."""
    context = {"cmk_encrypt": "v1", "purpose": purpose, "tenant": tenant}
    text = json.dumps(context, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return text.encode()


def read_local_key(directory: Path, key_uri: str) -> bytes:
    """The key of `local:NAME`."""
    scheme, _, name = key_uri.partition(":")
    if scheme != "local":
        raise ValueError(f"not a local key: {key_uri}")
    key = (directory / f"{name}.key").read_bytes()
    if len(key) != KEY_LEN:
        raise EnvelopeError("local_key_file")
    return key


def unwrap_local(key: bytes, tenant: str, wrapped: bytes, purpose: str = VALUES) -> bytes:
    """The DEK; reason: wrapped_key_rejected, whatever is wrong with it."""
    if len(wrapped) != WRAPPED_LEN or wrapped[0] != FORMAT_1:
        raise EnvelopeError("wrapped_key_rejected")
    nonce, sealed = wrapped[1 : 1 + NONCE_LEN], wrapped[1 + NONCE_LEN :]
    try:
        return xaes_open(key, nonce, sealed, encryption_context(tenant, purpose))
    except EnvelopeError:
        raise EnvelopeError("wrapped_key_rejected") from None


def wrap_local(
    key: bytes, tenant: str, dek: bytes, nonce: bytes, purpose: str = VALUES
) -> bytes:
    """Inverse of unwrap_local, for vectors and tests."""
    bound = encryption_context(tenant, purpose)
    return bytes([FORMAT_1]) + nonce + xaes_seal(key, nonce, dek, bound)


def open_stored(
    directory: Path,
    tenant: str,
    rows: list[tuple[str, bytes, bytes]],
    raw: bytes,
    aad: bytes = b"",
) -> bytes:
    """Opens an envelope fetched from a table, given the rows (key_uri, wrapped, commitment) of the
    tenant's data keys for values in cmk.data_key and the directory of key files: nothing of the
    extension takes part.
    """
    data_keys = [
        DataKey(unwrap_local(read_local_key(directory, key_uri), tenant, wrapped), commitment)
        for key_uri, wrapped, commitment in rows
    ]
    return open_from_registry(data_keys, tenant, raw, aad)
