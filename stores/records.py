r"""Inputs and their fates as JSON lines: one line an input, readable with any tool.

Lines are ASCII with `\u` escapes, so that keys with line breaks, or names that are not valid
text, stay on one line.
"""

import json
from collections.abc import Iterable
from typing import NamedTuple

from stores.errors import ManifestError
from stores.places import StorePath


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


DUPLICATE = "duplicate"
"""The reason of a duplicate where rejects and duplicates share a file."""


def rejects_to_bytes(rejects: Iterable[Reject]) -> bytes:
    """One line `{"key", "reason", "detail"}` a reject."""
    return "".join(json.dumps(reject._asdict()) + "\n" for reject in rejects).encode()


def inputs_to_bytes(inputs: Iterable[Input]) -> bytes:
    """One line `{"key", "size_bytes", "mtime_ns"}` an input."""
    return "".join(
        f'{{"key": {json.dumps(key)}, "size_bytes": {size}, "mtime_ns": {mtime}}}\n'
        for key, size, mtime in inputs
    ).encode()


def read_rejects(path: StorePath) -> list[Reject]:
    """The lines of `rejects_to_bytes`; empty when there is no such file.

    Raises:
        ManifestError: A line is not that of a reject.
    """
    if not path.exists():
        return []
    return [Reject(*values) for values in _read_lines(path, Reject._fields)]


def read_inputs(path: StorePath) -> list[Input]:
    """The lines of `inputs_to_bytes`.

    Raises:
        ManifestError: The file is missing, or a line is not that of an input.
    """
    return [Input(*values) for values in _read_lines(path, Input._fields)]


def _read_lines(path: StorePath, names: tuple[str, ...]) -> list[tuple]:
    try:
        lines = path.read_bytes().splitlines()
    except FileNotFoundError as error:
        raise ManifestError(f"{path} is missing; `deltaedit store verify` lists what is") from error
    rows = []
    for number, line in enumerate(lines, start=1):
        try:
            value = json.loads(line)
            rows.append(tuple(value[name] for name in names))
        except (ValueError, KeyError, TypeError) as error:
            raise ManifestError(f"{path}, line {number}: {error!r}") from error
    return rows
