"""Opens an envelope of any suite, under the one of a tenant's data keys that it names."""

import hmac
from typing import NamedTuple

import column
import envelope as e


class DataKey(NamedTuple):
    """An unwrapped row of cmk.data_key."""

    dek: bytes
    commitment: bytes


def is_of_column(raw: bytes) -> bool:
    return len(raw) > 1 and raw[0] == e.MAGIC and column.layout(raw[1]) is not None


def open_any(dek: bytes, tenant: str, raw: bytes, aad: bytes = b"") -> bytes:
    """The plaintext under a given raw data key; an envelope of a column is bound to no aad."""
    if not is_of_column(raw):
        return e.open_envelope(dek, tenant, raw, aad)
    if aad:
        raise e.EnvelopeError("not_authentic")
    return column.open_column(dek, tenant, raw)


def open_from_registry(
    data_keys: list[DataKey], tenant: str, raw: bytes, aad: bytes = b""
) -> bytes:
    """Opens `raw` under the one of a tenant's data keys that it names, checking the commitment.

    Reasons: those of parsing, unknown_data_key, commitment_mismatch, not_authentic.
    """
    parse = column.ColumnEnvelope.parse if is_of_column(raw) else e.Envelope.parse
    named = parse(raw).dek_id
    for key in data_keys:
        if key.commitment[: e.DEK_ID_LEN] == named:
            if not hmac.compare_digest(e.commitment(key.dek, tenant), key.commitment):
                raise e.EnvelopeError("commitment_mismatch")
            return open_any(key.dek, tenant, raw, aad)
    raise e.EnvelopeError("unknown_data_key")
