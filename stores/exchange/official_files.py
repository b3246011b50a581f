"""The files of DeltaEdit's published layout: found, their shapes compared, mapped into memory.

| column | training data, sets `noise` and `ffhq` | shipped examples, set `img` |
| --- | --- | --- |
| clip | `cspace_SET_feat.npy` [N, 512] | `cspace_img_feat.npy` |
| w_plus | `wspace_SET_feat.npy` [N, 18, 512] | `wplus_img_feat.npy` |
| s | `sspace_SET_feat.npy` [N, 6048] | `sspace_img_feat.npy` |

Row i of the files of a set belongs together. Such rows have no names and are called
`SET/000000017`, unless `keys_SET.jsonl` lies beside them: a JSON text a line, as our own export
writes it and the published code ignores it.
"""

import json
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from stores.checksum import sha256_file
from stores.errors import KeyCollisionError, SchemaMismatchError, SourceError
from stores.schema import Column, Schema

PREFIXES = {"cspace": "clip", "wspace": "w_plus", "wplus": "w_plus", "sspace": "s"}
"""What each space's file name begins with, and its column."""
NUM_AXES = {"clip": 2, "w_plus": 3, "s": 2}
"""Axes of each column's file, rows first."""
DTYPES = ("float32", "float16")

_FILE = re.compile(r"(cspace|wspace|wplus|sspace)_([A-Za-z0-9]+)_feat\.npy")


@dataclass(frozen=True, kw_only=True, slots=True)
class FeatureSet:
    """The files of one set, which have the same number of rows."""

    name: str
    """`noise`, `ffhq`, `img` or another word."""
    files: Mapping[str, Path]
    """The file of each column."""
    num_rows: int
    """N of each file."""
    keys: Path | None
    """Names of the rows, where an export left them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Features:
    """A folder of sets that have the same columns."""

    folder: Path
    """Where the files are."""
    sets: tuple[FeatureSet, ...]
    """By name."""
    schema: Schema
    """Their columns, as a store has them."""

    def fingerprints(self, **settings: str) -> dict[str, str]:
        """Per column, one readable line: `imported`, `settings`, and the digest of each file.

        Reads every byte of every file.
        """
        said = "".join(f" {name}={value}" for name, value in settings.items())
        return {
            column: f"imported official{said} "
            + " ".join(
                f"{part.files[column].name} sha256={sha256_file(part.files[column])}"
                for part in self.sets
            )
            for column in self.schema.names
        }

    def items(self) -> dict[str, tuple[FeatureSet, int]]:
        """Every row by its key: the set and the row number in the set's files.

        Raises:
            SourceError: a list of keys does not fit its arrays.
            KeyCollisionError: two rows have one key.
        """
        items: dict[str, tuple[FeatureSet, int]] = {}
        for part in self.sets:
            for row, key in enumerate(_keys_of(part)):
                if key in items:
                    raise KeyCollisionError(
                        f"{self.folder}: two rows have the key {key!r}; correct {part.keys}"
                    )
                items[key] = (part, row)
        return items


def find_features(folder: Path) -> Features:
    """The sets of a folder, their shapes compared; no values are read.

    Raises:
        SourceError: there are no such files, one is damaged, or they do not belong together.
    """
    found: defaultdict[str, dict[str, Path]] = defaultdict(dict)
    if not folder.is_dir():
        raise SourceError("missing", f"{folder} is not a folder; expected one with {_expected()}")
    for path in sorted(folder.iterdir()):
        match = _FILE.fullmatch(path.name)
        if match is None:
            continue
        column = PREFIXES[match[1]]
        if column in found[match[2]]:
            raise SourceError(
                "ambiguous", f"{path} and {found[match[2]][column]} are one column; remove one"
            )
        found[match[2]][column] = path
    if not found:
        raise SourceError("empty", f"{folder} has none of the files {_expected()}")
    arrays = {
        path: mapped(path, column)
        for files in found.values()
        for column, path in sorted(files.items())
    }
    sets = tuple(
        FeatureSet(
            name=name,
            files=files,
            num_rows=_common_rows({path: arrays[path] for path in files.values()}),
            keys=keys if (keys := folder / f"keys_{name}.jsonl").exists() else None,
        )
        for name, files in sorted(found.items())
    )
    return Features(folder=folder, sets=sets, schema=_common_schema(sets, arrays))


def mapped(path: Path, column: str) -> np.ndarray:
    """A file's array, mapped into memory; nothing of it is read before it is touched.

    Raises:
        SourceError: it is damaged, or has not the axes and numbers of `column`.
    """
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise SourceError(
            "unreadable", f"{path} is damaged, truncated or no .npy file ({error}); fetch it again"
        ) from error
    if not isinstance(array, np.ndarray) or array.ndim != NUM_AXES[column]:
        found = list(array.shape) if isinstance(array, np.ndarray) else "several arrays"
        raise SourceError(
            "other_shape",
            f"{path}: expected {NUM_AXES[column]} axes, rows first, for {column}; found {found}",
        )
    if not array.size:
        raise SourceError("empty", f"{path} has the shape {list(array.shape)}: no row to import")
    if array.dtype.name not in DTYPES:
        raise SourceError(
            "other_dtype",
            f"{path}: expected numbers of {' or '.join(DTYPES)}, found {array.dtype.name}; save it "
            "as float32",
        )
    return array


def _common_rows(arrays: Mapping[Path, np.ndarray]) -> int:
    lengths = {path.name: len(array) for path, array in arrays.items()}
    if len(set(lengths.values())) > 1:
        raise SourceError(
            "other_length",
            f"{next(iter(arrays)).parent}: rows of a set belong together, but "
            + ", ".join(f"{name} has {length}" for name, length in lengths.items())
            + "; fetch the files of one release",
        )
    return next(iter(lengths.values()))


def _common_schema(sets: tuple[FeatureSet, ...], arrays: Mapping[Path, np.ndarray]) -> Schema:
    schemas = {
        part.name: Schema(
            tuple(
                Column(column, arrays[path].shape[1:], arrays[path].dtype.name)
                for column in NUM_AXES
                if (path := part.files.get(column)) is not None
            )
        )
        for part in sets
    }
    first = next(iter(schemas.values()))
    different = [name for name, schema in schemas.items() if schema != first]
    if different:
        raise SchemaMismatchError(
            "the sets of one folder must have the same columns: "
            + "; ".join(f"{name} has {schema.to_json()}" for name, schema in schemas.items())
            + "; put the sets into folders, and stores, of their own"
        )
    return first


def _keys_of(part: FeatureSet) -> Iterator[str]:
    """The names of a set's rows: those of its list, else numbers."""
    if part.keys is None:
        yield from (f"{part.name}/{row:09d}" for row in range(part.num_rows))
        return
    num_keys = 0
    with part.keys.open(encoding="utf-8") as lines:
        for num_keys, line in enumerate(lines, start=1):
            yield _key_of_line(line, part.keys, num_keys)
    if num_keys != part.num_rows:
        raise SourceError(
            "other_length",
            f"{part.keys} has {num_keys} lines for the {part.num_rows} rows of set {part.name}; "
            "export again, or remove it to number the rows",
        )


def _key_of_line(line: str, path: Path, number: int) -> str:
    try:
        key = json.loads(line)
    except ValueError as error:
        raise SourceError("unreadable", f"{path}, line {number}: {error}") from error
    if not isinstance(key, str):
        raise SourceError("unreadable", f"{path}, line {number}: {key!r} is no text")
    return key


def _expected() -> str:
    return "{w,s,c}space_{noise,ffhq}_feat.npy or {wplus,sspace,cspace}_img_feat.npy"
