"""Embeddings folders as clip-retrieval writes them: which files there are, and what they hold.

```
img_emb/img_emb_0.npy            [N, C] float16, rows of length 1
metadata/metadata_0.parquet      N rows; column image_path, and captions and the like
```

Row i of a `.npy` belongs to row i of the `.parquet` of the same number.
"""

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from stores.errors import SourceError
from stores.schema import Column, Schema

COLUMN = "clip"
PATHS = "image_path"
"""The column of the metadata whose values become keys."""

BLOCK_ROWS = 16384
LENGTH_TOLERANCE = 1e-3
"""How far the length of a unit row can be from 1 after rounding to float16."""
_PART = re.compile(r"img_emb_(\d+)\.npy")


@dataclass(frozen=True, slots=True)
class Part:
    """One pair of files."""

    embeddings: Path
    """`img_emb_*.npy`."""
    metadata: Path
    """`metadata_*.parquet`."""
    num_rows: int
    """Rows of each."""


@dataclass(frozen=True, slots=True)
class EmbeddingsFolder:
    """What an embeddings folder holds."""

    parts: tuple[Part, ...]
    """Its files, in the order of their numbers."""
    dim: int
    """C, the width of an embedding."""
    dtype: str
    """Of the embeddings: float16 as clip-retrieval writes them."""
    is_normalised: bool
    """Whether every finite row has length 1."""
    left_out: tuple[str, ...]
    """What a store does not hold: columns of the metadata other than the path, text embeddings."""

    @property
    def num_rows(self) -> int:
        """Rows of all parts."""
        return sum(part.num_rows for part in self.parts)

    @property
    def schema(self) -> Schema:
        """The columns of a store that holds the rows bit for bit."""
        return Schema((Column(COLUMN, (self.dim,), self.dtype),))

    def fingerprints(self, model: str) -> dict[str, str]:
        """What is known about the values: the model as the user names it, and their lengths."""
        kind = "normalised" if self.is_normalised else "not normalised"
        return {COLUMN: f"{model} embeddings={self.dtype} {kind} imported from clip-retrieval"}


def find_embeddings(folder: Path | str) -> EmbeddingsFolder:
    """Look through an embeddings folder: its files, shapes and the lengths of its rows.

    Raises:
        SourceError: A file is missing, cannot be read, or does not fit the others.
    """
    root = Path(folder)
    numbered = [(_PART.fullmatch(path.name), path) for path in (root / "img_emb").glob("*.npy")]
    found = sorted((int(match[1]), match[1], path) for match, path in numbered if match)
    if not found:
        raise SourceError(
            "missing",
            f"{root} has no img_emb/img_emb_0.npy; give a folder that `clip-retrieval inference` "
            "wrote",
        )
    arrays = [mapped(path) for _number, _digits, path in found]
    kinds = {(array.shape[1], array.dtype.name) for array in arrays}
    if len(kinds) > 1:
        raise SourceError("mixed", f"{root}/img_emb has arrays of {sorted(kinds)}; need one kind")
    left_out = ["text_emb"] if (root / "text_emb").is_dir() else []
    parts: list[Part] = []
    for (_number, digits, path), array in zip(found, arrays, strict=True):
        metadata = root / "metadata" / f"metadata_{digits}.parquet"
        num_rows, columns = _describe(metadata)
        if num_rows != len(array):
            raise SourceError("rows", f"{path} has {len(array)} rows, {metadata} {num_rows}")
        parts.append(Part(path, metadata, num_rows))
        left_out += [name for name in columns if name not in {PATHS, *left_out}]
    ((dim, dtype),) = kinds
    is_normalised = all(_has_unit_rows(array) for array in arrays)
    return EmbeddingsFolder(tuple(parts), dim, dtype, is_normalised, tuple(left_out))


def lengths(rows: np.ndarray) -> np.ndarray:
    """Rows [N, C] -> their Euclidean lengths [N] float32."""
    return np.linalg.norm(rows.astype(np.float32), axis=1)


def mapped(path: Path) -> np.ndarray:
    """[N, C] floats; mapped afresh each time, so that pages of former rows can be given back.

    Raises:
        SourceError: The file cannot be read as that.
    """
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise SourceError("unreadable", f"{path} cannot be read as .npy: {error}") from error
    if array.ndim != 2 or array.dtype.kind != "f":  # noqa: PLR2004 - rows and channels
        raise SourceError(
            "shape", f"{path} is {list(array.shape)} {array.dtype}; embeddings are [N, C] floats"
        )
    return array


def _describe(metadata: Path) -> tuple[int, list[str]]:
    """Rows and columns of a metadata file."""
    from pyarrow import ArrowException, parquet

    try:
        file = parquet.ParquetFile(metadata)
        num_rows, columns = file.metadata.num_rows, list(file.schema_arrow.names)
    except (OSError, ArrowException) as error:
        raise SourceError("unreadable", f"{metadata} cannot be read: {error}") from error
    if PATHS not in columns:
        raise SourceError(
            "missing", f"{metadata} has no column {PATHS} (it has {', '.join(columns)})"
        )
    return num_rows, columns


def _has_unit_rows(array: np.ndarray) -> bool:
    for start in range(0, len(array), BLOCK_ROWS):
        found = lengths(array[start : start + BLOCK_ROWS])
        if (np.abs(found[np.isfinite(found)] - 1) > LENGTH_TOLERANCE).any():
            return False
    return True
