"""Searches a process's memory for a key."""

import base64
import re
import sys
from pathlib import Path

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

# Of measurements too, which know of this directory only.
sys.path.append(str(Path(__file__).resolve().parents[1] / "crosscheck"))
from envelope import xaes_derive  # noqa: E402

WRITABLE = re.compile(r"^([0-9a-f]+)-([0-9a-f]+) rw")


def find(pid, needles, shared=False):
    """Addresses in the writable memory of a process where any of `needles` begins: in its private memory, or in
    the memory that it shares with others."""
    found = []
    with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            match = WRITABLE.match(line)
            # Nobody reads secret memory, not even root.
            if not match or shared != ("rw-s" in line) or "[v" in line or "secretmem" in line:
                continue
            start, end = (int(address, 16) for address in match.groups())
            memory.seek(start)
            content = memory.read(end - start)
            for needle in needles:
                found += [start + hit.start() for hit in re.finditer(re.escape(needle), content)]
    return found


def is_zero(pid, addresses):
    """Whether eight bytes at each of these addresses are zero. Takes no time, unlike a search."""
    with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
        for address in addresses:
            memory.seek(address)
            if any(memory.read(8)):
                return False
    return True


def forms(dek):
    """Pieces of the raw key (an expanded one begins with it) and of its spelling in KMS's answer."""
    spelt = base64.b64encode(dek)
    return [dek[at : at + 8] for at in range(0, 32, 8)] + [spelt[at : at + 11] for at in range(0, 44, 11)]


def derived_forms(dek, nonce):
    """Pieces of the message key that XAES-256-GCM derives for a nonce (an expanded one begins with it), and of the
    number that GCM hashes by: as GHASH has it, and as POLYVAL does (RFC 8452, appendix A)."""
    key, _ = xaes_derive(dek, nonce)
    ghash = Cipher(algorithms.AES256(key), modes.ECB()).encryptor().update(bytes(16))
    number = int.from_bytes(ghash, "big") << 1
    if number >> 128:
        number ^= 1 << 128 | 0xC2 << 120 | 1
    polyval = number.to_bytes(16, "little")
    return [of[at : at + 8] for of in (key, ghash, polyval) for at in range(0, len(of), 8)]


def flags_at(pid, address):
    """The kernel's flags of the mapping that holds `address`: lo = locked, dd = not dumped, dc = not forked."""
    inside = False
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        bounds = re.match(r"^([0-9a-f]+)-([0-9a-f]+) ", line)
        if bounds:
            start, end = (int(bound, 16) for bound in bounds.groups())
            inside = start <= address < end
        elif inside and line.startswith("VmFlags:"):
            return set(line.split()[1:])
    raise AssertionError(f"no mapping holds {address:#x}")
