"""Opens one envelope: `python open_envelope.py TENANT ENVELOPE [--aad AAD_HEX] < DEK_HEX`.

ENVELOPE is what stands in a column: in hexadecimal as psql prints bytea, `\\x` allowed, or the
armor of a protected column (`cmk1:…`). Prints the plaintext in hexadecimal, or the reason on stderr
with exit status 1. The data key comes on stdin because arguments show in the process list.
"""

import argparse
import sys

import column
from envelope import EnvelopeError
from registry import open_any


def hexadecimal(text: str) -> bytes:
    return bytes.fromhex(text.strip().removeprefix("\\x"))


def envelope(text: str) -> bytes:
    if not text.startswith(column.PREFIX):
        return hexadecimal(text)
    unarmored = column.unarmor(text.strip())
    if unarmored is None:
        raise ValueError("not armor")
    return unarmored


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("tenant")
    parser.add_argument("envelope", type=envelope)
    parser.add_argument("--aad", type=hexadecimal, default=b"")
    arguments = parser.parse_args()
    dek = hexadecimal(sys.stdin.read())
    try:
        print(open_any(dek, arguments.tenant, arguments.envelope, arguments.aad).hex())
    except EnvelopeError as error:
        print(error.reason, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
