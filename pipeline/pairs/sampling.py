"""Which row is paired with which: seeded draws that can be repeated one by one."""

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from pipeline.errors import PairError
from pipeline.pairs.index import NeighbourGraph, limit_graph, restrict_graph, unit_rows
from pipeline.rng import generator_for
from pipeline.shapes import Floats, Ints

Policy = Literal["random", "nearest", "band"]

MIN_ACCEPTANCE = 1e-4
"""Least share of random pairs that a band may accept before it is refused as empty."""
PROBE_PAIRS = 65_536
"""Random pairs looked at to learn how many of them a band accepts."""
PERCENTILES = (1, 50, 99)
"""Of the similarities of random pairs, told to a user whose band is empty."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PairConfig:
    """How a source row gets its target row."""

    policy: Policy = "random"
    """`random`: any other row, uniformly, as published. `nearest`: uniformly one of the row's
    nearest neighbours. `band`: uniformly one of the pairs whose cosine lies in the bounds."""

    num_neighbours: int = 16
    """Neighbours that `nearest` chooses from."""

    min_similarity: float = -1.0
    """Least CLIP cosine of a pair; `nearest` and `band` only."""

    max_similarity: float = 1.0
    """Largest CLIP cosine of a pair; below 1 it keeps near-duplicates out. `nearest` and `band`
    only."""

    seed: int = 0
    """Two samplers with equal seeds draw equal pairs."""

    def __post_init__(self) -> None:
        problems: list[str] = []
        if self.policy not in get_args(Policy):
            problems.append(f"policy is {self.policy!r}: choose one of {get_args(Policy)}")
        if self.num_neighbours < 1:
            problems.append(f"num_neighbours is {self.num_neighbours}: at least 1")
        low, high = self.min_similarity, self.max_similarity
        if not -1.0 <= low < high <= 1.0:
            problems.append(
                f"similarity bounds are {low} and {high}: cosines, the first below the second"
            )
        if self.policy == "random" and (low, high) != (-1.0, 1.0):
            problems.append("policy random ignores similarity bounds: use nearest or band")
        if problems:
            raise PairError("; ".join(problems))


class PairSampler:
    """Draws pairs among `num_rows` rows numbered from 0; never a row with itself.

    Draw `i` depends on the configuration and `i` alone, so that a resumed run needs no generator
    state and any draw can be repeated. Under `random` and `nearest` the sources of consecutive
    draws of one size run through a new permutation of the rows in every epoch, so that each row is
    the source equally often, as in the published loader.
    """

    def __init__(
        self,
        config: PairConfig,
        num_rows: int,
        *,
        neighbours: NeighbourGraph | None = None,
        units: Floats | None = None,
    ) -> None:
        """Prepare the draws.

        Args:
            config: the policy and its bounds.
            num_rows: rows to pair, at least 2.
            neighbours: graph of these rows, for `nearest`.
            units: [num_rows, C] float32 unit CLIP rows, for `band`.

        Raises:
            PairError: the policy cannot be carried out on these rows.
        """
        if num_rows < 2:  # noqa: PLR2004 - a pair has two rows
            raise PairError(f"{num_rows} rows give no pair: encode more images")
        self.config = config
        self._sources: Ints = np.arange(num_rows)
        self._num_rows = num_rows
        self._epoch = -1
        self._order: Ints = self._sources
        if config.policy == "nearest":
            self._prepare_nearest(neighbours)
        elif config.policy == "band":
            self._prepare_band(units)

    def draw(self, number: int, count: int) -> tuple[Ints, Ints]:
        """Draw `number` of the sequence: source and target rows, [count] int64 each."""
        generator = generator_for(self.config.seed, "pairs", number)
        if self.config.policy == "band":
            return self._draw_band(generator, count)
        sources = self._next_sources(number * count, count)
        if self.config.policy == "nearest":
            choice = (generator.random(count) * self._num_choices[sources]).astype(np.int64)
            return sources, self._choices[sources, choice].astype(np.int64)
        return sources, _other_rows(generator, sources, self._num_rows)

    def _next_sources(self, start: int, count: int) -> Ints:
        parts: list[Ints] = []
        while count:
            epoch, first = divmod(start, len(self._sources))
            if epoch != self._epoch:
                shuffled = generator_for(self.config.seed, "epoch", epoch)
                self._order = shuffled.permutation(self._sources)
                self._epoch = epoch
            part = self._order[first : first + count]
            parts.append(part)
            start, count = start + len(part), count - len(part)
        return np.concatenate(parts) if parts else np.empty(0, dtype=np.int64)

    def _prepare_nearest(self, neighbours: NeighbourGraph | None) -> None:
        if neighbours is None:
            raise PairError("policy nearest needs a neighbour graph: build one of these rows")
        if len(neighbours.ids) != self._num_rows:
            raise PairError(
                f"the neighbour graph has {len(neighbours.ids)} rows, {self._num_rows} are paired: "
                "restrict it to the same rows"
            )
        config = self.config
        allowed = limit_graph(neighbours, config.min_similarity, config.max_similarity).ids
        self._choices = allowed[:, : config.num_neighbours]
        self._num_choices = np.count_nonzero(self._choices >= 0, axis=1)
        self._sources = np.flatnonzero(self._num_choices)
        if not len(self._sources):
            raise PairError(
                f"no row has a neighbour with a cosine in {config.min_similarity}.."
                f"{config.max_similarity}: widen the bounds or build the graph with more neighbours"
            )

    def _prepare_band(self, units: Floats | None) -> None:
        if units is None or len(units) != self._num_rows:
            raise PairError(f"policy band needs the {self._num_rows} unit CLIP rows that it pairs")
        self._units = units
        generator = generator_for(self.config.seed, "probe")
        sources = generator.integers(self._num_rows, size=PROBE_PAIRS)
        similarities = self._cosines(sources, _other_rows(generator, sources, self._num_rows))
        self._acceptance = float(self._in_band(similarities).mean())
        if self._acceptance < MIN_ACCEPTANCE:
            spread = np.percentile(similarities, PERCENTILES).round(3).tolist()
            raise PairError(
                f"the band {self.config.min_similarity}..{self.config.max_similarity} accepts "
                f"{self._acceptance:.2g} of random pairs, at least {MIN_ACCEPTANCE:g} is needed; "
                f"their cosines have percentiles {PERCENTILES} of {spread}: widen the band, or use "
                "nearest with the same bounds"
            )

    def _draw_band(self, generator: np.random.Generator, count: int) -> tuple[Ints, Ints]:
        # Rejection keeps the accepted pairs uniform over all pairs of the band.
        sources, targets = np.empty(count, np.int64), np.empty(count, np.int64)
        filled = 0
        while filled < count:
            num_tried = min(PROBE_PAIRS, int((count - filled) / self._acceptance * 1.1) + 16)
            tried = generator.integers(self._num_rows, size=num_tried)
            partners = _other_rows(generator, tried, self._num_rows)
            accepted = np.flatnonzero(self._in_band(self._cosines(tried, partners)))
            accepted = accepted[: count - filled]
            stop = filled + len(accepted)
            sources[filled:stop], targets[filled:stop] = tried[accepted], partners[accepted]
            filled = stop
        return sources, targets

    def _cosines(self, sources: Ints, targets: Ints) -> Floats:
        return np.clip(np.vecdot(self._units[sources], self._units[targets]), -1.0, 1.0)

    def _in_band(self, similarities: Floats) -> np.ndarray:
        return (similarities >= self.config.min_similarity) & (
            similarities <= self.config.max_similarity
        )


def sample_pairs(
    config: PairConfig,
    rows: Ints,
    count: int,
    *,
    clip: Floats | None = None,
    neighbours: NeighbourGraph | None = None,
) -> tuple[Ints, Ints]:
    """Draw `count` pairs of distinct rows, both from `rows`.

    Args:
        config: policy and seed; the same configuration draws the same pairs.
        rows: [M] distinct row numbers of one split; no pair leaves them.
        count: pairs to draw.
        clip: [N, C] float32 embeddings of the whole store, for `band`.
        neighbours: graph of the whole store, for `nearest`.

    Returns:
        Source and target row numbers, [count] int64 each.

    Raises:
        PairError: the policy cannot be carried out on these rows.
    """
    rows = np.asarray(rows, dtype=np.int64)
    local = None if neighbours is None else restrict_graph(neighbours, rows)
    units = unit_rows(clip[rows]) if clip is not None and config.policy == "band" else None
    sampler = PairSampler(config, len(rows), neighbours=local, units=units)
    sources, targets = sampler.draw(0, count)
    return rows[sources], rows[targets]


def _other_rows(generator: np.random.Generator, sources: Ints, num_rows: int) -> Ints:
    others = generator.integers(num_rows - 1, size=len(sources))
    return others + (others >= sources)
