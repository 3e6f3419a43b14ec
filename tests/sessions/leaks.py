"""Looks for secrets in everything that a server leaves on disk."""

import base64
import re


def forms(secret):
    """How bytes may appear: raw, in either hexadecimal, in base64 at each of the three alignments."""
    hexadecimal = secret.hex().encode()
    # What base64 makes of the bytes in the middle of something, without the characters that depend on
    # the neighbours.
    shifted = [base64.b64encode(b"\0" * shift + secret)[lead:-4] for shift, lead in ((0, 0), (1, 2), (2, 3))]
    return {secret, hexadecimal, hexadecimal.upper(), *shifted}


class Search:
    """One pass over many files for many secrets; finds what they are called, never prints them."""

    def __init__(self, secrets):
        self._names = {form: name for name, secret in secrets.items() for form in forms(secret)}
        longest_first = sorted(self._names, key=len, reverse=True)
        self._pattern = re.compile(b"|".join(map(re.escape, longest_first)))

    def in_bytes(self, data):
        return {self._names[found] for found in self._pattern.findall(data)}

    def in_files(self, root):
        """{name of a secret: files that hold it}, relative to `root`."""
        found = {}
        for path in root.rglob("*"):
            if path.is_file() and not path.is_symlink():
                try:
                    data = path.read_bytes()
                except FileNotFoundError:  # the server removes files as it goes
                    continue
                for name in self.in_bytes(data):
                    found.setdefault(name, set()).add(str(path.relative_to(root)))
        return found
