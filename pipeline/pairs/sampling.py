"""Which row is paired with which: seeded draws that can be repeated one by one."""

import numpy as np

from pipeline.errors import PairError
from pipeline.pairs.config import EXACT_DIRECTION_ROWS, PairConfig, Policy
from pipeline.pairs.direction import best_aligned
from pipeline.pairs.graph import NeighbourGraph, limit_graph, neighbour_graph, restrict_graph
from pipeline.pairs.policies import BandPairs, ChosenPairs, PairDraws, RandomPairs, need_units
from pipeline.pairs.rows import unit_rows
from pipeline.rng import generator_for
from pipeline.shapes import Floats, Ints

DIRECTION_NEIGHBOURS = 64
"""Neighbours per row of a graph that is built here for `direction` to walk on."""


class PairSampler:
    """Draws pairs among `num_rows` rows numbered from 0; never a row with itself.

    Draw `i` depends on the configuration and `i` alone, so that a resumed run needs no generator
    state and any draw can be repeated. Under every policy but `band` the sources of consecutive
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
            neighbours: graph of these rows, for `nearest`, and for `direction` on many rows; built
                here from `units` when it is needed and not given.
            units: [num_rows, C] float32 unit CLIP rows, for what `PairConfig.needs_clip`.

        Raises:
            PairError: the policy cannot be carried out on these rows.
        """
        if num_rows < 2:  # noqa: PLR2004 - a pair has two rows
            raise PairError(f"{num_rows} rows give no pair: encode more images")
        self.config = config
        if config.needs_graph(num_rows):
            neighbours = _graph_of(config, num_rows, neighbours, units)
        self._policies = [
            _prepared(policy, config, num_rows, neighbours, units) for policy in config.mixture
        ]
        self._weights = list(config.mixture.values())

    def draw(self, number: int, count: int) -> tuple[Ints, Ints]:
        """Draw `number` of the sequence: source and target rows, [count] int64 each."""
        if len(self._policies) == 1:
            return self._policies[0].draw(number, count)
        # Every policy draws for every place, and the mixture picks one: a policy's draws are then
        # the same whatever its weight.
        generator = generator_for(self.config.seed, "mixture", number)
        chosen = generator.choice(len(self._policies), size=count, p=self._weights)
        drawn = np.array([policy.draw(number, count) for policy in self._policies])
        sources, targets = drawn[chosen, :, np.arange(count)].T
        return sources, targets


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
        clip: [N, C] float32 embeddings of the whole store, for what `PairConfig.needs_clip`.
        neighbours: graph of the whole store, for what `PairConfig.needs_graph`.

    Returns:
        Source and target row numbers, [count] int64 each.

    Raises:
        PairError: the policy cannot be carried out on these rows.
    """
    rows = np.asarray(rows, dtype=np.int64)
    local = None if neighbours is None else restrict_graph(neighbours, rows)
    units = unit_rows(clip[rows]) if clip is not None and config.needs_clip else None
    sampler = PairSampler(config, len(rows), neighbours=local, units=units)
    sources, targets = sampler.draw(0, count)
    return rows[sources], rows[targets]


def _graph_of(
    config: PairConfig, num_rows: int, neighbours: NeighbourGraph | None, units: Floats | None
) -> NeighbourGraph:
    if neighbours is None and units is None:
        raise PairError(f"policy {config.policy} needs a neighbour graph: build one of these rows")
    if neighbours is None:
        k = DIRECTION_NEIGHBOURS if "direction" in config.mixture else config.num_neighbours
        return neighbour_graph(need_units(config, num_rows, units), min(k, num_rows - 1))
    if len(neighbours.ids) != num_rows:
        raise PairError(
            f"the neighbour graph has {len(neighbours.ids)} rows, {num_rows} are paired: restrict "
            "it to the same rows"
        )
    return neighbours


def _prepared(
    policy: Policy,
    config: PairConfig,
    num_rows: int,
    neighbours: NeighbourGraph | None,
    units: Floats | None,
) -> PairDraws:
    if policy == "random":
        return RandomPairs(config, num_rows, units)
    if policy == "band":
        return BandPairs(config, num_rows, units)
    if policy == "direction":
        units = need_units(config, num_rows, units)
        walked = neighbours if num_rows > EXACT_DIRECTION_ROWS else None
        return ChosenPairs(config.seed, best_aligned(config, units, walked))
    assert neighbours is not None, "nearest needs a graph, and PairSampler has seen to it"
    return ChosenPairs(config.seed, _nearest(config, neighbours))


def _nearest(config: PairConfig, neighbours: NeighbourGraph) -> Ints:
    low, high = config.min_similarity, config.max_similarity
    targets = limit_graph(neighbours, low, high).ids[:, : config.num_neighbours]
    if not (targets >= 0).any():
        raise PairError(
            f"no row has a neighbour with a cosine in {low}..{high}: widen the bounds or build the "
            "graph with more neighbours"
        )
    return targets
