"""Opens one envelope: `python open_envelope.py TENANT ENVELOPE_HEX [--aad AAD_HEX] < DEK_HEX`.

Prints the plaintext in hexadecimal, or the reason on stderr with exit status 1. The data key comes
on stdin because arguments show in the process list. Hexadecimal as psql prints it, `\\x` allowed.
"""

import argparse
import sys

from envelope import EnvelopeError, open_envelope


def hexadecimal(text: str) -> bytes:
    return bytes.fromhex(text.strip().removeprefix("\\x"))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("tenant")
    parser.add_argument("envelope", type=hexadecimal)
    parser.add_argument("--aad", type=hexadecimal, default=b"")
    arguments = parser.parse_args()
    dek = hexadecimal(sys.stdin.read())
    try:
        print(open_envelope(dek, arguments.tenant, arguments.envelope, arguments.aad).hex())
    except EnvelopeError as error:
        print(error.reason, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
