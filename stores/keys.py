"""Keys from file names, and back: reversible for every name that a file system can hold.

A name that is valid UTF-8 is its own key. Other bytes are written `%FF`, as in a URL. So that no
two names share a key, a `%` is written `%25` where it would otherwise read as such an escape:
before `25`, and before two hexadecimal digits from `80` on.
"""

import os
import re

_LOOKS_ESCAPED = re.compile(r"%(?=25|[89A-Fa-f][0-9A-Fa-f])")
_ESCAPED = re.compile(r"%(25|[89A-F][0-9A-F])")


def key_of_name(name: str) -> str:
    """The key of a relative path, given as Python spells it (surrogate escapes)."""
    if name.isascii() and "%" not in name:  # as most are: listings have 10^7 and more
        return name
    escaped = _LOOKS_ESCAPED.sub("%25", name)
    return "".join(
        f"%{os.fsencode(letter)[0]:02X}" if "\udc80" <= letter <= "\udcff" else letter
        for letter in escaped
    )


def name_of_key(key: str) -> str:
    """The relative path of a key: the inverse of `key_of_name`."""

    def unescape(match: re.Match[str]) -> str:
        byte = bytes.fromhex(match[1])
        return byte.decode() if byte < b"\x80" else byte.decode("utf-8", "surrogateescape")

    if "%" not in key:
        return key
    return _ESCAPED.sub(unescape, key)
