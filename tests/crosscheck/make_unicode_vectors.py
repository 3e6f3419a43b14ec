"""Prints what normalizations do to each character of Unicode 14: `python make_unicode_vectors.py`.

Kept and used as make_vectors.py. Needs a Python with that version of Unicode, such as 3.11. Tokens
are made of normalized text: should a newer version treat one of these characters differently, values
would not be found any more.
"""

import json
import sys
import unicodedata
from collections.abc import Callable

import search_token as t

EVERY = [chr(code) for code in range(0x110000) if not 0xD800 <= code <= 0xDFFF]


def spans(belongs: Callable[[str], bool]) -> list[str]:
    """The code points, as `41-5A` or `AA`."""
    out: list[list[int]] = []
    for code in (ord(character) for character in EVERY if belongs(character)):
        if out and out[-1][1] == code - 1:
            out[-1][1] = code
        else:
            out.append([code, code])
    return [f"{a:X}" if a == b else f"{a:X}-{b:X}" for a, b in out]


def code_points(text: str) -> str:
    return "+".join(f"{ord(character):X}" for character in text)


def is_assigned(character: str) -> bool:
    return unicodedata.category(character) != "Cn"


if __name__ == "__main__":
    if unicodedata.unidata_version != "14.0.0":
        sys.exit(f"this Python has Unicode {unicodedata.unidata_version}")
    lower = [f"{code_points(c)}:{code_points(low)}" for c in EVERY if (low := c.lower()) != c]
    document = {
        "unicode": unicodedata.unidata_version,
        "encoding": "code points in hexadecimal; in lower: a character and what is its lower case",
        "assigned": " ".join(spans(is_assigned)),
        "alphanumeric": " ".join(spans(t.is_alphanumeric)),
        "lower": " ".join(lower),
    }
    json.dump(document, sys.stdout, indent=1, ensure_ascii=False)
    sys.stdout.write("\n")
