"""Pairs that follow a text: their CLIP difference points along it, all else stays put.

For unit rows ``u``, a unit text direction ``d`` and a pair from row i to row j,

    ``gain = (u_j - u_i) . d``,   ``rest = |(I - dd') (u_j - u_i)|``,
    ``alignment = gain / sqrt(gain^2 + rest^2) = cos(u_j - u_i, d)``.

`rest` is the distance of the two rows in the space orthogonal to `d`: among targets of one gain,
the best aligned is the nearest neighbour there. Since ``|u_j - u_i|^2 = 2 - 2 u_i . u_j``, all
alignments of a block of rows cost one matrix product and no orthogonal copy of the rows.
"""

from typing import NamedTuple

import numpy as np

from pipeline.errors import PairError
from pipeline.pairs.config import PairConfig
from pipeline.pairs.graph import NeighbourGraph
from pipeline.pairs.rows import cosines_of
from pipeline.shapes import Floats, Ints, assert_shape

MIN_SQUARED_DISTANCE = 1e-6
"""Rows nearer than a thousandth are copies; their difference is rounding and points nowhere."""
EXACT_BLOCK_ROWS = 256
WALK_BLOCK_ROWS = 64
WALK_WIDTH = 4
"""Best targets of a row whose neighbours are looked at in one round of the walk."""
WALK_ROUNDS = 6


class AlignedTargets(NamedTuple):
    """The targets of every row that follow a direction best, best first."""

    ids: Ints
    """[N, K] int32 row numbers; -1 where fewer than K targets have a positive alignment."""
    alignments: Floats
    """[N, K] float32 in 0..1; -1 where `ids` is -1."""


def aligned_targets(
    units: Floats,
    direction: Floats,
    k: int,
    *,
    bounds: tuple[float, float] = (-1.0, 1.0),
    neighbours: NeighbourGraph | None = None,
) -> AlignedTargets:
    """Find for every row the `k` targets that follow a direction best.

    Without a graph all pairs are compared: N^2 C multiplications, and memory for a block of 256
    rows of N alignments. With one, each row walks: from its nearest neighbours to the neighbours
    of the best aligned so far, for a few rounds; about 1,600 comparisons per row.

    Args:
        units: [N, C] float32 unit rows.
        direction: [C] float32 unit vector.
        k: targets per row.
        bounds: least and largest cosine of a pair.
        neighbours: graph of exactly these rows; given, it is walked.

    Raises:
        ShapeError: the direction or the graph is of other rows.
    """
    assert_shape(units, (None, None), "units")
    assert_shape(direction, (units.shape[1],), "direction")
    if neighbours is not None:
        assert_shape(neighbours.ids, (len(units), None), "neighbours")
    search = _Search(units, units @ direction, bounds)
    k = min(k, len(units) - 1)
    result = AlignedTargets(
        np.empty((len(units), k), dtype=np.int32), np.empty((len(units), k), dtype=np.float32)
    )
    block_rows = EXACT_BLOCK_ROWS if neighbours is None else WALK_BLOCK_ROWS
    for start in range(0, len(units), block_rows):
        rows = np.arange(start, min(start + block_rows, len(units)))
        found = (
            search.all_pairs(rows, k)
            if neighbours is None
            else search.walk(rows, k, neighbours.ids)
        )
        for kept, best in zip(result, found, strict=True):
            kept[rows] = best
    return result


def best_aligned(config: PairConfig, units: Floats, neighbours: NeighbourGraph | None) -> Ints:
    """The targets that policy `direction` draws from.

    Every row's `num_neighbours` best aligned targets are ranked together; the best
    `direction_share` of them stay.

    Returns:
        [N, K] int32 row numbers, -1 where a row has fewer.

    Raises:
        PairError: no pair follows the direction.
    """
    assert config.direction is not None, "PairConfig gives policy direction a direction"
    targets = aligned_targets(
        units,
        config.direction.unit,
        config.num_neighbours,
        bounds=(config.min_similarity, config.max_similarity),
        neighbours=neighbours,
    )
    num_kept = int(np.ceil(config.direction_share * np.count_nonzero(targets.ids >= 0)))
    if not num_kept:
        raise PairError(
            f"no pair with a cosine in {config.min_similarity}..{config.max_similarity} leads from "
            f"{config.direction.source!r} to {config.direction.target!r}: widen the bounds"
        )
    ranked = targets.alignments.ravel()
    least = np.partition(ranked, -num_kept)[-num_kept]
    return np.where(targets.alignments >= least, targets.ids, -1)


class _Pool(NamedTuple):
    """The best targets of a block of rows so far, best first."""

    ids: Ints
    """[B, M] int32; -1 where there are fewer."""
    alignments: Floats
    """[B, M] float32; -1 where `ids` is -1."""
    visited: np.ndarray
    """[B, M] bool: the walk has looked at the neighbours of this one."""


class _Search:
    def __init__(self, units: Floats, along: Floats, bounds: tuple[float, float]) -> None:
        self._units = units
        self._along = along
        self._bounds = bounds

    def all_pairs(self, rows: Ints, k: int) -> AlignedTargets:
        """Compare `rows` with every row."""
        everyone = np.broadcast_to(
            np.arange(len(self._units), dtype=np.int32), (len(rows), len(self._units))
        )
        alignments = self._alignments(rows, everyone, self._units[rows] @ self._units.T)
        best = np.argpartition(alignments, -k, axis=1)[:, -k:].astype(np.int32)
        pool = _best(_fresh(best, np.take_along_axis(alignments, best, axis=1)), k)
        return AlignedTargets(pool.ids, pool.alignments)

    def walk(self, rows: Ints, k: int, graph: Ints) -> AlignedTargets:
        """Compare `rows` with their neighbours, then with those of the best, and so on."""
        size = max(k, WALK_ROUNDS * WALK_WIDTH)
        pool = _best(self._compared(rows, graph[rows]), size)
        for _ in range(WALK_ROUNDS):
            steps = _next_steps(pool)
            # A missing one (-1) leads nowhere; its row of the graph must not be the last row's.
            reached = np.where(steps[:, :, None] >= 0, graph[steps], -1)
            found = self._compared(rows, reached.reshape(len(rows), -1))
            pool = _best(_joined(pool, found), size)
        return AlignedTargets(pool.ids[:, :k], pool.alignments[:, :k])

    def _compared(self, rows: Ints, ids: Ints) -> _Pool:
        sources = np.repeat(rows, ids.shape[1])
        cosines = cosines_of(self._units, sources, ids.ravel()).reshape(ids.shape)
        alignments = self._alignments(rows, ids, cosines)
        alignments[ids < 0] = -1.0
        return _fresh(ids, alignments)

    def _alignments(self, rows: Ints, ids: Ints, cosines: Floats) -> Floats:
        low, high = self._bounds
        squared = np.maximum(2.0 - 2.0 * cosines, np.float32(MIN_SQUARED_DISTANCE))
        gains = self._along[ids] - self._along[rows][:, None]
        outside = (cosines < low) | (cosines > high) | (ids == rows[:, None])
        return np.where(outside, np.float32(-1.0), gains / np.sqrt(squared))


def _fresh(ids: Ints, alignments: Floats) -> _Pool:
    return _Pool(ids, alignments, np.zeros(ids.shape, dtype=bool))


def _joined(pool: _Pool, found: _Pool) -> _Pool:
    return _Pool(
        np.concatenate([pool.ids, found.ids], axis=1),
        np.concatenate([pool.alignments, found.alignments], axis=1),
        np.concatenate([pool.visited, found.visited], axis=1),
    )


def _next_steps(pool: _Pool) -> Ints:
    """The best that were not visited, [B, WALK_WIDTH], now marked as visited; -1 for missing."""
    unvisited_first = np.argsort(pool.visited, axis=1, kind="stable")[:, :WALK_WIDTH]
    steps = np.take_along_axis(pool.ids, unvisited_first, axis=1)
    seen = np.take_along_axis(pool.visited, unvisited_first, axis=1)
    np.put_along_axis(pool.visited, unvisited_first, values=True, axis=1)
    return np.where(seen, -1, steps)


def _best(pool: _Pool, k: int) -> _Pool:
    """The `k` best of each row, each id once (the first of it), those leading backwards as -1."""
    by_id = np.argsort(pool.ids, axis=1, kind="stable")
    ids = np.take_along_axis(pool.ids, by_id, axis=1)
    alignments = np.take_along_axis(pool.alignments, by_id, axis=1)
    alignments[:, 1:][ids[:, 1:] == ids[:, :-1]] = -1.0
    best = np.argsort(-alignments, axis=1, kind="stable")[:, :k]
    alignments = np.take_along_axis(alignments, best, axis=1)
    chosen = np.take_along_axis(by_id, best, axis=1)
    forward = alignments > 0
    return _Pool(
        np.where(forward, np.take_along_axis(ids, best, axis=1), -1),
        np.where(forward, alignments, np.float32(-1.0)),
        np.take_along_axis(pool.visited, chosen, axis=1),
    )
