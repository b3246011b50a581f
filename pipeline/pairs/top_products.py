"""The largest inner products of rows with all rows, at the speed of the matrix product.

Selecting the k largest of N products a row costs more than computing them in bfloat16. So a sample
of the rows first gives each query a threshold that a few hundred products exceed, and the
threshold becomes part of the product:

    ``[q, -t_1, -t_2] . [r - mean, 1, 1] = q . (r - mean) - t``,   ``t = t_1 + t_2``.

Then selection is one comparison with zero, and bfloat16, whose steps are finest near zero, is most
exact where it decides (taking the mean of the rows away shifts all products of a query alike).
What exceeds the threshold is compared again in float32. How far a bfloat16 product is off is
measured on these rows; queries whose threshold could have hidden a neighbour are named, to be
searched exactly.
"""

import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from pipeline.pairs.rows import cosines_of
from pipeline.rng import generator_for
from pipeline.shapes import Floats, Ints

if TYPE_CHECKING:
    from torch import Tensor, dtype

SAMPLE_SHARE = 1 / 32
"""Part of the rows that thresholds are estimated from."""
SPARE_RANK = 9
"""By how much a threshold's rank in the sample exceeds the expected rank of the k-th product: a
threshold that fewer than k products exceed has then a probability of about 1e-4."""
TILE_ROWS = 4096
"""Rows compared with a block of queries at once: the products stay in the processor's cache."""
MAX_CANDIDATES = 8192
"""Products kept per query; rows with more of equal similarity are better searched exactly."""
PROBE_QUERIES = 256
PROBE_ROWS = 4096
"""Products that the error of bfloat16 is measured on."""
ROUNDOFF = 2.0**-8
"""Largest relative error of rounding to bfloat16."""
MIN_SPEED_UP = 1.5
"""Of bfloat16 over float32 products, from which on it pays to use them."""
ERROR_MARGIN = 1.5
"""The largest error is taken to be this many times the largest measured."""


class Found(NamedTuple):
    """The best rows of a block of queries."""

    ids: Ints
    """[Q, K] int64, most similar first, equal ones by number; undefined where not `sure`."""
    similarities: Floats
    """[Q, K] float32."""
    sure: np.ndarray
    """[Q] bool: nothing better can have been missed."""


class TopProducts:
    """Finds for rows the `k` other rows with the largest inner products.

    Beside the rows themselves it holds a copy of them in bfloat16.
    """

    def __init__(self, units: Floats, k: int) -> None:
        """Prepare the search.

        Args:
            units: [N, C] float32 unit rows, many more than `k`.
            k: rows to find, besides the query itself.
        """
        import torch

        self._units = units
        self._k = k
        mean = units.mean(axis=0, dtype=np.float64).astype(np.float32)
        self._rows = torch.ones((len(units), units.shape[1] + 2), dtype=torch.bfloat16)
        for start in range(0, len(units), TILE_ROWS):
            tile = slice(start, start + TILE_ROWS)
            self._rows[tile, :-2] = torch.from_numpy(units[tile] - mean).bfloat16()
        generator = generator_for(0, "threshold-sample")
        num_sampled = int(len(units) * SAMPLE_SHARE)
        sample = np.sort(generator.choice(len(units), num_sampled, replace=False))
        self._sample = self._rows[torch.from_numpy(sample)][:, :-2]
        self._rank = int(np.ceil((k + 1) * SAMPLE_SHARE)) + SPARE_RANK
        self._error = self._measured_error(generator, mean)

    def search(self, start: int, stop: int) -> Found:
        """The best rows of the queries `start` to `stop`; thread-safe."""
        num_queries = stop - start
        queries, rows, products = self._candidates(start, stop)
        counts = np.bincount(queries, minlength=num_queries)
        least = _kth_largest(queries, products, counts, self._k)
        # A product p is off by at most `error`, and by rounding it: roundoff * p.
        sure = (least * (1 - ROUNDOFF) > 2 * self._error) & (counts < MAX_CANDIDATES)
        reach = least * (1 - 2 * ROUNDOFF) - 2 * self._error
        kept = (products >= reach[queries]) & sure[queries]
        queries, rows = queries[kept], rows[kept]
        similarities = cosines_of(self._units, queries + start, rows)
        best = np.lexsort((rows, -similarities, queries))
        chosen = best[_firsts(queries, num_queries)[sure, None] + np.arange(self._k)]
        ids = np.zeros((num_queries, self._k), dtype=np.int64)
        found = np.zeros((num_queries, self._k), dtype=np.float32)
        ids[sure], found[sure] = rows[chosen], similarities[chosen]
        return Found(ids, found, sure)

    def _candidates(self, start: int, stop: int) -> tuple[Ints, Ints, Floats]:
        """What exceeds the thresholds: query (from 0, rising), row, product above threshold."""
        import torch

        queries = self._with_thresholds(torch.from_numpy(self._units[start:stop]))
        counts = np.zeros(stop - start, dtype=np.int64)
        parts: list[tuple[Ints, Ints, Floats]] = []
        buffer = torch.empty((stop - start, TILE_ROWS), dtype=queries.dtype)
        for first in range(0, len(self._rows), TILE_ROWS):
            tile = self._rows[first : first + TILE_ROWS]
            whole = len(tile) == TILE_ROWS
            values = _bits(torch.mm(queries, tile.T, out=buffer if whole else None))
            places = np.flatnonzero(values > 0)
            query, row = np.divmod(places, len(tile))
            row += first
            parts.append((query, row, _from_bits(values.ravel()[places])))
            counts += np.bincount(query, minlength=len(counts))
            crowded = counts >= MAX_CANDIDATES
            if crowded.any():
                queries[torch.from_numpy(crowded)] = 0.0  # a zero product is no candidate
        query, row, product = (np.concatenate(column) for column in zip(*parts, strict=True))
        others = row != query + start
        # Sorting 16-bit numbers is a radix sort in numpy.
        order = np.argsort(query[others].astype(np.uint16), kind="stable")
        return query[others][order], row[others][order], product[others][order]

    def _with_thresholds(self, units: "Tensor") -> "Tensor":
        import torch

        queries = units.to(self._rows.dtype)
        sampled = _bits(torch.mm(queries, self._sample.T))
        threshold = np.partition(sampled, -self._rank, axis=1)[:, -self._rank]
        thresholds = torch.from_numpy(_from_bits(threshold))
        high = thresholds.to(queries.dtype)
        low = (thresholds - high.float()).to(queries.dtype)
        return torch.cat([queries, -high[:, None], -low[:, None]], dim=1)

    def _measured_error(self, generator: np.random.Generator, mean: Floats) -> float:
        """How far products are off, apart from the rounding of the product itself."""
        import torch

        chosen = generator.integers(len(self._units), size=PROBE_QUERIES)
        others = generator.integers(len(self._units), size=PROBE_ROWS)
        queries = self._with_thresholds(torch.from_numpy(self._units[chosen]))
        products = torch.mm(queries, self._rows[torch.from_numpy(others)].T).double().numpy()
        thresholds = queries[:, -2:].double().sum(dim=1, keepdim=True).numpy()
        units = self._units.astype(np.float64, copy=False)[chosen]
        exact = units @ (self._units[others] - mean.astype(np.float64)).T + thresholds
        errors = np.abs(products - exact) - ROUNDOFF * np.abs(exact)
        return ERROR_MARGIN * max(0.0, float(errors.max()))


@lru_cache(maxsize=1)
def has_bfloat16_units() -> bool:
    """Whether this processor multiplies matrices in bfloat16 well faster than in float32.

    Measured, since libraries also accept bfloat16 where they must emulate it.
    """
    import torch

    def seconds(precision: "dtype") -> float:
        rows = torch.ones((1024, 512), dtype=precision)
        times = []
        for _ in range(4):
            begin = time.perf_counter()
            torch.mm(rows, rows.T)
            times.append(time.perf_counter() - begin)
        return min(times)

    return seconds(torch.float32) > MIN_SPEED_UP * seconds(torch.bfloat16)


def in_threads(
    search: Callable[[int, int], Found], starts: range, num_rows: int
) -> Iterator[Found]:
    """Search blocks of rows side by side, one thread a block; results in order.

    Selection is not threaded by itself, so whole blocks are. At most two blocks per thread are
    searched ahead of what was taken.
    """
    import torch

    num_threads = torch.get_num_threads()
    waiting: deque[Future[Found]] = deque()
    with ThreadPoolExecutor(num_threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        try:
            for start in starts:
                stop = min(start + starts.step, num_rows)
                waiting.append(pool.submit(search, start, stop))
                if len(waiting) > 2 * num_threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)
            torch.set_num_threads(num_threads)


def _kth_largest(queries: Ints, products: Floats, counts: Ints, k: int) -> Floats:
    """Each query's k-th largest product, 0 where it has fewer: [Q] float32."""
    padded = np.zeros((len(counts), max(int(counts.max()), k)), dtype=np.float32)
    places = np.arange(len(queries)) - _firsts(queries, len(counts))[queries]
    padded[queries, places] = products
    return np.partition(padded, -k, axis=1)[:, -k]


def _firsts(queries: Ints, num_queries: int) -> Ints:
    """Where the entries of each query begin in a list grouped by query: [Q] int64."""
    counts = np.bincount(queries, minlength=num_queries)
    return np.cumsum(counts) - counts


def _bits(products: "Tensor") -> np.ndarray:
    """Bfloat16 as int16: above zero, where alone it matters here, they are ordered alike."""
    import torch

    return products.view(torch.int16).numpy()


def _from_bits(values: np.ndarray) -> Floats:
    """Bfloat16 is the upper half of float32."""
    return (values.astype(np.int32) << 16).view(np.float32)
