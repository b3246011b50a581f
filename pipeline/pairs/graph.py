"""The nearest other rows of every row, found once so that pairs are drawn without an index."""

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from pipeline.errors import PairError
from pipeline.pairs.index import build_index, has_gpus, on_gpus, search
from pipeline.pairs.rows import unit_rows
from pipeline.pairs.top_products import TopProducts, has_bfloat16_units, in_threads
from pipeline.shapes import Floats, Ints

if TYPE_CHECKING:
    import faiss

EXACT_ROWS = 32_768
"""Up to this many rows all cosines are compared in float32: half a minute on one core at C 512."""
BLOCK_ROWS = 1024
MAX_BLOCK_ROWS = 2**16 - 1
"""Queries of a block are numbered in 16 bits; far smaller blocks are as fast."""


class NeighbourGraph(NamedTuple):
    """The nearest other rows of every row, most similar first."""

    ids: Ints
    """[N, K] int32 row numbers; -1 where a row has fewer than K neighbours."""
    similarities: Floats
    """[N, K] float32 cosines in -1..1; -1 where `ids` is -1."""


def neighbour_graph(clip: Floats, k: int, *, block_rows: int = BLOCK_ROWS) -> NeighbourGraph:
    """Find the `k` most similar other rows of every row.

    A row is never its own neighbour; other rows with the same embedding are. Up to
    `EXACT_ROWS` rows, on GPUs (with faiss-gpu) and on processors without bfloat16 units, all
    cosines are compared in float32. Else candidates are found by bfloat16 products
    (`TopProducts`) and compared again in float32: nearly three times as fast, and of the same
    result but for rounding.

    Args:
        clip: [N, C] float32, of any length.
        k: neighbours per row, at most N - 1.
        block_rows: queries searched at once by each thread.

    Raises:
        PairError: `k` or `block_rows` is out of range, or a row has no direction.
    """
    blocks = [block for _start, block in neighbour_blocks(clip, k, block_rows=block_rows)]
    return join_graphs(blocks)


def neighbour_blocks(
    clip: Floats,
    k: int,
    *,
    first_row: int = 0,
    block_rows: int = BLOCK_ROWS,
    bfloat16: bool | None = None,
) -> Iterator[tuple[int, NeighbourGraph]]:
    """The graph of `neighbour_graph`, a block of rows at a time, in order.

    Memory beside `clip` does not grow with `k` or with what was yielded: the unit rows, and a
    searchable copy of them.

    Args:
        clip: [N, C] float32, of any length.
        k: neighbours per row, at most N - 1.
        first_row: where to begin, such as after the rows that an interrupted run has.
        block_rows: rows per block.
        bfloat16: find candidates by bfloat16 products; None where that pays.

    Yields:
        The block's first row, and the neighbours of its rows.

    Raises:
        PairError: `k` or `block_rows` is out of range, or a row has no direction.
    """
    num_rows = len(clip)
    if not 1 <= k < num_rows:
        raise PairError(f"k is {k}, but {num_rows} rows have {num_rows - 1} neighbours each")
    if not 1 <= block_rows <= MAX_BLOCK_ROWS:
        raise PairError(f"block_rows is {block_rows}: search 1 to {MAX_BLOCK_ROWS} rows at a time")
    units = unit_rows(clip)
    starts = range(first_row, num_rows, block_rows)
    if bfloat16 is None:
        bfloat16 = num_rows > EXACT_ROWS and not has_gpus() and has_bfloat16_units()
    if not bfloat16:
        exact = _ExactSearch(units, k)
        for start in starts:
            yield start, exact.neighbours(np.arange(start, min(start + block_rows, num_rows)))
        return
    yield from _bfloat16_blocks(units, k, starts)


def _bfloat16_blocks(units: Floats, k: int, starts: range) -> Iterator[tuple[int, NeighbourGraph]]:
    top, exact = TopProducts(units, k), _ExactSearch(units, k)
    for start, found in zip(starts, in_threads(top.search, starts, len(units)), strict=True):
        ids, similarities = found.ids.astype(np.int32), np.clip(found.similarities, -1.0, 1.0)
        unsure = np.flatnonzero(~found.sure)
        if len(unsure):
            ids[unsure], similarities[unsure] = exact.neighbours(start + unsure)
        yield start, NeighbourGraph(ids, similarities)


class _ExactSearch:
    """Compares rows with all rows in float32; indexes them when it is first used."""

    def __init__(self, units: Floats, k: int) -> None:
        self._units = units
        self._k = k

    @cached_property
    def _index(self) -> "faiss.Index":
        return on_gpus(build_index(self._units))

    def neighbours(self, rows: Ints) -> NeighbourGraph:
        """The k most similar other rows of each of `rows`."""
        similarities, ids = search(self._index, self._units[rows], self._k + 1)
        others = ids != rows[:, None]
        # Among more than k equal embeddings a row may be missing from its own results.
        others[others.all(axis=1), -1] = False
        shape = len(rows), self._k
        return NeighbourGraph(
            ids[others].reshape(shape).astype(np.int32), similarities[others].reshape(shape)
        )


def join_graphs(blocks: Sequence[NeighbourGraph]) -> NeighbourGraph:
    """Blocks of consecutive rows as one graph."""
    return NeighbourGraph(
        np.concatenate([block.ids for block in blocks]),
        np.concatenate([block.similarities for block in blocks]),
    )


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
