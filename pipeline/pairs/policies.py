"""The draws of single policies; every one can be repeated by its number."""

from typing import Protocol

import numpy as np

from pipeline.errors import PairError
from pipeline.pairs.config import PairConfig
from pipeline.pairs.rows import cosines_of
from pipeline.rng import generator_for
from pipeline.shapes import Floats, Ints

MIN_ACCEPTANCE = 1e-4
"""Least share of random pairs that similarity bounds may accept before they are refused."""
PROBE_PAIRS = 65_536
"""Random pairs looked at to learn how many of them the bounds accept."""
PERCENTILES = (1, 50, 99)
"""Of the similarities of random pairs, told to a user whose bounds leave none."""
PATIENCE = 32
"""Targets tried for one source under a largest similarity, before the source gives way."""


class PairDraws(Protocol):
    """A policy, ready to draw."""

    def draw(self, number: int, count: int) -> tuple[Ints, Ints]:
        """Draw `number` of the sequence: source and target rows, [count] int64 each."""
        ...


class EpochSources:
    """Rows in a new order every epoch, each once: any stretch of that endless sequence."""

    def __init__(self, rows: Ints, seed: int) -> None:
        self._rows = rows
        self._seed = seed
        self._epoch = -1
        self._order = rows

    def take(self, start: int, count: int) -> Ints:
        """Places `start` to `start + count` of the sequence, [count] int64."""
        parts: list[Ints] = []
        while count:
            epoch, first = divmod(start, len(self._rows))
            if epoch != self._epoch:
                shuffled = generator_for(self._seed, "epoch", epoch)
                self._order = shuffled.permutation(self._rows)
                self._epoch = epoch
            part = self._order[first : first + count]
            parts.append(part)
            start, count = start + len(part), count - len(part)
        return np.concatenate(parts) if parts else np.empty(0, dtype=np.int64)


class Cosines:
    """Cosines of pairs of unit rows, and whether they lie within a configuration's bounds."""

    def __init__(self, units: Floats, bounds: tuple[float, float], seed: int) -> None:
        """Look at random pairs to learn how many the bounds accept.

        Args:
            units: [N, C] float32 unit rows.
            bounds: least and largest cosine.
            seed: of the choice of those pairs.

        Raises:
            PairError: almost none.
        """
        self._units = units
        self._bounds = bounds
        generator = generator_for(seed, "probe")
        sources = generator.integers(len(units), size=PROBE_PAIRS)
        similarities = self._of(sources, other_rows(generator, sources, len(units)))
        self.acceptance = float(self._within(similarities).mean())
        if self.acceptance < MIN_ACCEPTANCE:
            spread = np.percentile(similarities, PERCENTILES).round(3).tolist()
            raise PairError(
                f"the bounds {bounds[0]}..{bounds[1]} accept {self.acceptance:.2g} of random "
                f"pairs, at least {MIN_ACCEPTANCE:g} is needed; their cosines have percentiles "
                f"{PERCENTILES} of {spread}: widen them, or use nearest with the same bounds"
            )

    def allowed(self, sources: Ints, targets: Ints) -> np.ndarray:
        """Which pairs lie within the bounds: [M] bool."""
        return self._within(self._of(sources, targets))

    def _within(self, similarities: Floats) -> np.ndarray:
        return (similarities >= self._bounds[0]) & (similarities <= self._bounds[1])

    def _of(self, sources: Ints, targets: Ints) -> Floats:
        return np.clip(cosines_of(self._units, sources, targets), -1.0, 1.0)


class RandomPairs:
    """Any other row, uniformly over those that are not too similar."""

    def __init__(self, config: PairConfig, num_rows: int, units: Floats | None) -> None:
        self._seed = config.seed
        self._num_rows = num_rows
        self._sources = EpochSources(np.arange(num_rows), config.seed)
        self._cosines = None
        if config.max_similarity < 1.0:
            units = need_units(config, num_rows, units)
            self._cosines = Cosines(units, (-1.0, config.max_similarity), config.seed)

    def draw(self, number: int, count: int) -> tuple[Ints, Ints]:
        """As `PairDraws.draw`."""
        generator = generator_for(self._seed, "pairs", number)
        sources = self._sources.take(number * count, count)
        targets = other_rows(generator, sources, self._num_rows)
        if self._cosines is not None:
            self._replace_duplicates(generator, sources, targets, self._cosines)
        return sources, targets

    def _replace_duplicates(
        self, generator: np.random.Generator, sources: Ints, targets: Ints, cosines: Cosines
    ) -> None:
        refused, tries = np.flatnonzero(~cosines.allowed(sources, targets)), 0
        while len(refused):
            tries += 1
            if tries > PATIENCE:
                sources[refused] = generator.integers(self._num_rows, size=len(refused))
            targets[refused] = other_rows(generator, sources[refused], self._num_rows)
            refused = refused[~cosines.allowed(sources[refused], targets[refused])]


class ChosenPairs:
    """Uniformly one of the targets listed for each row; rows without one are never sources."""

    def __init__(self, seed: int, targets: Ints) -> None:
        """Prepare the draws.

        Args:
            seed: of the draws.
            targets: [N, K] row numbers, each row's first; -1 where it has fewer. Some row has one.
        """
        self._seed = seed
        self._targets = targets
        self._num_targets = np.count_nonzero(targets >= 0, axis=1)
        self._sources = EpochSources(np.flatnonzero(self._num_targets), seed)

    def draw(self, number: int, count: int) -> tuple[Ints, Ints]:
        """As `PairDraws.draw`."""
        generator = generator_for(self._seed, "pairs", number)
        sources = self._sources.take(number * count, count)
        choice = (generator.random(count) * self._num_targets[sources]).astype(np.int64)
        return sources, self._targets[sources, choice].astype(np.int64)


class BandPairs:
    """Uniform over all pairs whose cosine lies within the bounds."""

    def __init__(self, config: PairConfig, num_rows: int, units: Floats | None) -> None:
        self._seed = config.seed
        self._num_rows = num_rows
        bounds = config.min_similarity, config.max_similarity
        self._cosines = Cosines(need_units(config, num_rows, units), bounds, config.seed)

    def draw(self, number: int, count: int) -> tuple[Ints, Ints]:
        """As `PairDraws.draw`; rejection keeps the accepted pairs uniform."""
        generator = generator_for(self._seed, "pairs", number)
        sources, targets = np.empty(count, np.int64), np.empty(count, np.int64)
        filled = 0
        while filled < count:
            wanted = int((count - filled) / self._cosines.acceptance * 1.1) + 16
            tried = generator.integers(self._num_rows, size=min(PROBE_PAIRS, wanted))
            partners = other_rows(generator, tried, self._num_rows)
            accepted = np.flatnonzero(self._cosines.allowed(tried, partners))
            accepted = accepted[: count - filled]
            stop = filled + len(accepted)
            sources[filled:stop], targets[filled:stop] = tried[accepted], partners[accepted]
            filled = stop
        return sources, targets


def other_rows(generator: np.random.Generator, sources: Ints, num_rows: int) -> Ints:
    """A uniform row for each source that is not the source itself: [M] int64."""
    others = generator.integers(num_rows - 1, size=len(sources))
    return others + (others >= sources)


def need_units(config: PairConfig, num_rows: int, units: Floats | None) -> Floats:
    """The unit rows.

    Raises:
        PairError: they are missing, or others than those paired.
    """
    if units is None or len(units) != num_rows:
        raise PairError(f"policy {config.policy} needs the {num_rows} unit CLIP rows that it pairs")
    return units
