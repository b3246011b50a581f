"""Exact nearest neighbours of CLIP embeddings by cosine similarity (FAISS, inner product)."""

from typing import TYPE_CHECKING

import numpy as np

from pipeline.errors import PairError
from pipeline.pairs.rows import unit_rows
from pipeline.shapes import Floats, Ints, assert_shape

if TYPE_CHECKING:
    import faiss


def build_index(clip: Floats) -> "faiss.IndexFlatIP":
    """Index the rows of `clip` [N, C] float32 (normalised here) for exact search by cosine."""
    import faiss

    index = faiss.IndexFlatIP(clip.shape[1])
    index.add(unit_rows(clip))  # pyright: ignore[reportCallIssue] - faiss patches add at import
    return index


def search(index: "faiss.Index", queries: Floats, k: int) -> tuple[Floats, Ints]:
    """Find the `k` indexed rows most similar to each query.

    Args:
        index: made by `build_index`.
        queries: [M, C] float32, of any length.
        k: results per query, at most the number of indexed rows.

    Returns:
        Cosines [M, k] float32 in -1..1, falling, and row numbers [M, k] int64.

    Raises:
        PairError: `k` is outside 1..rows.
        ShapeError: the queries have another width than the index.
    """
    assert_shape(queries, (None, index.d), "queries")
    if not 1 <= k <= index.ntotal:
        raise PairError(f"k is {k}, but the index holds {index.ntotal} rows: ask for 1 to that")
    similarities, rows = index.search(  # pyright: ignore[reportCallIssue] - patched like `add`
        np.ascontiguousarray(unit_rows(queries)), k
    )
    return np.clip(similarities, -1.0, 1.0), rows


def index_to_bytes(index: "faiss.Index") -> bytes:
    """The index in FAISS's own file format."""
    import faiss

    return faiss.serialize_index(index).tobytes()


def index_from_bytes(data: bytes) -> "faiss.Index":
    """The inverse of `index_to_bytes`.

    Raises:
        PairError: the bytes are not a whole FAISS index.
    """
    import faiss

    try:
        return faiss.deserialize_index(np.frombuffer(data, dtype=np.uint8))
    except RuntimeError as error:
        raise PairError(
            f"{len(data)} bytes are not a whole FAISS index: rebuild it ({error})"
        ) from error
