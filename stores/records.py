r"""Inputs and their fates as JSON lines: one line an input, readable with any tool.

Lines are ASCII with `\u` escapes, so that keys with line breaks, or names that are not valid
text, stay on one line.
"""

import json
from collections.abc import Callable, Iterable
from json.encoder import encode_basestring_ascii
from operator import itemgetter
from typing import Any, NamedTuple, TypeVar

from stores.errors import ManifestError
from stores.places import StorePath

_Line = TypeVar("_Line")


class Reject(NamedTuple):
    """An input that gave no row."""

    key: str
    """The input."""
    reason: str
    """One word, for tables."""
    detail: str
    """What was found, for people. Of a duplicate: the key that has the row."""


class Duplicate(NamedTuple):
    """An input with the same bytes as another."""

    key: str
    """The one that is left out."""
    of_key: str
    """The one that stays."""


class Input(NamedTuple):
    """What identifies an input without reading it."""

    key: str
    """The key of its row."""
    size_bytes: int
    """Length of the file; 0 for inputs that are not files."""
    mtime_ns: int
    """Time of the file's last change in nanoseconds since 1970; 0 for inputs that are not files."""
    sha256: str | None = None
    """Digest of the bytes that the row was made from; None where it is not known."""

    @property
    def is_known(self) -> bool:
        """Whether size and time are on record; a list that was rebuilt has only keys."""
        return bool(self.size_bytes or self.mtime_ns)


DUPLICATE = "duplicate"
"""The reason of a duplicate where rejects and duplicates share a file."""


def rejects_to_bytes(rejects: Iterable[Reject]) -> bytes:
    """One line `{"key", "reason", "detail"}` a reject."""
    return "".join(json.dumps(reject._asdict()) + "\n" for reject in rejects).encode()


def inputs_to_bytes(inputs: Iterable[Input]) -> bytes:
    """One line `{"key", "size_bytes", "mtime_ns", "sha256"}` an input.

    The last member is left out where it is not known.
    """
    return "".join(
        f'{{"key": {encode_basestring_ascii(key)}, "size_bytes": {size}, "mtime_ns": {mtime}'
        + (f', "sha256": "{sha256}"}}\n' if sha256 else "}\n")
        for key, size, mtime, sha256 in inputs
    ).encode()


def listing_to_bytes(inputs: Iterable[Input]) -> bytes:
    """The lines of `inputs_to_bytes` with what a listing knows of them: all but the digests."""
    return inputs_to_bytes(Input(key, size, mtime) for key, size, mtime, _ in inputs)


def read_rejects(path: StorePath) -> list[Reject]:
    """The lines of `rejects_to_bytes`; empty when there is no such file.

    Raises:
        ManifestError: A line is not that of a reject.
    """
    if not path.exists():
        return []
    return _read_lines(path, lambda line: Reject(line["key"], line["reason"], line["detail"]))


def read_inputs(path: StorePath) -> list[Input]:
    """The lines of `inputs_to_bytes`.

    Raises:
        ManifestError: The file is missing, or a line is not that of an input.
    """
    try:
        return _read_lines(
            path,
            lambda x: Input(x["key"], x["size_bytes"], x["mtime_ns"], x.get("sha256")),
        )
    except FileNotFoundError as error:
        raise ManifestError(f"{path} is missing; `deltaedit store verify` lists what is") from error


def keys_of_lines(data: bytes, path: StorePath) -> list[str]:
    """The keys in the bytes of a list of inputs or of rejects, in its order.

    Raises:
        ManifestError: A line is not that of an input or a reject.
    """
    return _parse_lines(data, path, itemgetter("key"))


def _read_lines(path: StorePath, parse: Callable[[Any], _Line]) -> list[_Line]:
    return _parse_lines(path.read_bytes(), path, parse)


def _parse_lines(data: bytes, path: StorePath, parse: Callable[[Any], _Line]) -> list[_Line]:
    lines = data.splitlines()
    try:
        # As one array: a third of the time that a call a line takes.
        return [parse(value) for value in json.loads(b"[" + b",".join(lines) + b"]")]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ManifestError(f"{path}{_first_bad(lines, parse)}: {error!r}") from error


def _first_bad(lines: list[bytes], parse: Callable[[Any], object]) -> str:
    """`, line 7`: the line that cannot be read by itself."""
    for number, line in enumerate(lines, start=1):
        try:
            parse(json.loads(line))
        except (ValueError, KeyError, TypeError, AttributeError):
            return f", line {number}"
    return ""
