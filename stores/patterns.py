"""Sources that name many files at once: braces as in WebDataset's lists, and shell globs."""

import os
from pathlib import Path

from stores.errors import SourceError
from stores.source_files import exists, matches

_SPECIAL = "{*?["


def paths_of(source: str) -> list[tuple[str, str]]:
    """The paths, or URLs of objects, that a source stands for, each with its name.

    A path that exists is itself, and its name is its last part. Of a pattern, braces expand first
    (``faces-{000000..000009}.tar``, ``{train,eval}/*.tar``), and each path that they spell out must
    exist; then globs, ``**`` for folders at any depth. The name of such a path is its part behind
    the last folder that the pattern spells out, so that equal names in different folders differ.

    Raises:
        SourceError: A path does not exist, a glob matches nothing, or a brace is left open.
        ObjectStoreError: An object store does not answer.
    """
    if exists(source):
        return [(source, Path(source).name)]
    from braceexpand import braceexpand

    try:
        spelled = list(braceexpand(source, escape=False))
    except ValueError as error:  # its UnbalancedBracesError
        raise SourceError("bad_source", f"the source {source!r}: {error}") from error
    paths = [path for each in spelled for path in _matches(each, source)]
    root = _fixed_folder(source)
    return [(path, os.path.relpath(path, root)) for path in dict.fromkeys(paths)]


def _fixed_folder(source: str) -> str:
    """The folders that a pattern begins with before any brace or wildcard."""
    first = min(source.index(letter) for letter in _SPECIAL if letter in source)
    return str(Path(source[:first] + "x").parent)


def _matches(path: str, source: str) -> list[str]:
    if exists(path):
        return [path]
    paths = matches(path) if any(letter in path for letter in _SPECIAL) else []
    if not paths:
        of_pattern = "" if path == source else f" of the source {source!r}"
        raise SourceError(
            "missing", f"{path!r}{of_pattern} does not exist; check the path (is a disk mounted?)"
        )
    return paths
