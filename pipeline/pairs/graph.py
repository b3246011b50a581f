"""The nearest other rows of every row, found once so that pairs are drawn without an index."""

from typing import NamedTuple

import numpy as np

from pipeline.errors import PairError
from pipeline.pairs.index import build_index, search
from pipeline.shapes import Floats, Ints


class NeighbourGraph(NamedTuple):
    """The nearest other rows of every row, most similar first."""

    ids: Ints
    """[N, K] int32 row numbers; -1 where a row has fewer than K neighbours."""
    similarities: Floats
    """[N, K] float32 cosines in -1..1; -1 where `ids` is -1."""


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
