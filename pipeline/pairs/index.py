"""Exact nearest neighbours of CLIP embeddings by cosine similarity (FAISS, inner product)."""

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from pipeline.errors import PairError
from pipeline.shapes import Floats, Ints, assert_shape

if TYPE_CHECKING:
    import faiss

MIN_NORM = 1e-12
"""Rows shorter than this have no direction."""


class NeighbourGraph(NamedTuple):
    """The nearest other rows of every row, most similar first."""

    ids: Ints
    """[N, K] int32 row numbers; -1 where a row has fewer than K neighbours."""
    similarities: Floats
    """[N, K] float32 cosines in -1..1; -1 where `ids` is -1."""


def unit_rows(clip: Floats) -> Floats:
    """Divide every row by its length: [N, C] float32 -> [N, C] float32.

    Raises:
        PairError: a row is NaN, infinite or zero, so that it has no direction.
    """
    assert_shape(clip, (None, None), "clip")
    clip = np.asarray(clip, dtype=np.float32)
    norms = np.linalg.norm(clip, axis=1, keepdims=True)
    usable = np.isfinite(norms[:, 0]) & (norms[:, 0] > MIN_NORM)
    if not usable.all():
        row = int(np.argmin(usable))
        raise PairError(
            f"row {row} of clip has length {norms[row, 0]}; cosine similarity needs finite rows "
            f"that are not zero: drop it ({np.count_nonzero(~usable)} such rows)"
        )
    return clip / norms


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


def neighbour_graph(clip: Floats, k: int, *, block_rows: int = 1024) -> NeighbourGraph:
    """Find the `k` most similar other rows of every row, exactly.

    A row is never its own neighbour; other rows with the same embedding are.

    Args:
        clip: [N, C] float32, of any length.
        k: neighbours per row, at most N - 1.
        block_rows: queries searched at once. Beside the index, memory grows with this only.

    Raises:
        PairError: `k` or `block_rows` is out of range, or a row has no direction.
    """
    num_rows = len(clip)
    if not 1 <= k < num_rows:
        raise PairError(f"k is {k}, but {num_rows} rows have {num_rows - 1} neighbours each")
    if block_rows < 1:
        raise PairError(f"block_rows is {block_rows}: search at least one row at a time")
    index = build_index(clip)
    ids = np.empty((num_rows, k), dtype=np.int32)
    similarities = np.empty((num_rows, k), dtype=np.float32)
    for start in range(0, num_rows, block_rows):
        stop = min(start + block_rows, num_rows)
        found_similarities, found = search(index, clip[start:stop], k + 1)
        others = found != np.arange(start, stop)[:, None]
        # Among more than k equal embeddings a row may be missing from its own results.
        others[others.all(axis=1), -1] = False
        ids[start:stop] = found[others].reshape(-1, k)
        similarities[start:stop] = found_similarities[others].reshape(-1, k)
    return NeighbourGraph(ids, similarities)


def restrict_graph(graph: NeighbourGraph, rows: Ints) -> NeighbourGraph:
    """Keep the edges among `rows`, renumbered to positions in `rows`.

    Args:
        graph: of the whole store.
        rows: [M] distinct row numbers, such as the training split.

    Returns:
        A graph of M rows; edges that leave `rows` are dropped, so rows may end in -1.
    """
    position_of = np.full(len(graph.ids), -1, dtype=np.int32)
    position_of[rows] = np.arange(len(rows), dtype=np.int32)
    ids = graph.ids[rows]
    ids = np.where(ids < 0, -1, position_of[ids])
    return _packed(ids, graph.similarities[rows], ids >= 0)


def limit_graph(graph: NeighbourGraph, low: float, high: float) -> NeighbourGraph:
    """Keep the edges whose cosine lies in `low`..`high`, both included."""
    similarities = graph.similarities
    kept = (graph.ids >= 0) & (similarities >= low) & (similarities <= high)
    return _packed(graph.ids, similarities, kept)


def _packed(ids: Ints, similarities: Floats, kept: np.ndarray) -> NeighbourGraph:
    order = np.argsort(~kept, axis=1, kind="stable")
    return NeighbourGraph(
        np.take_along_axis(np.where(kept, ids, -1), order, axis=1).astype(np.int32),
        np.take_along_axis(np.where(kept, similarities, -1.0), order, axis=1).astype(np.float32),
    )
