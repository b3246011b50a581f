from dataclasses import replace

import numpy as np
import pytest

from pipeline.errors import PairError
from pipeline.pairs.config import PairConfig, TextDirection
from pipeline.pairs.graph import neighbour_graph
from pipeline.pairs.rows import unit_rows
from pipeline.pairs.sampling import PairSampler, sample_pairs

NUM_ROWS = 60
CONFIGS = [
    PairConfig(policy="random", seed=3),
    PairConfig(policy="nearest", num_neighbours=4, seed=3),
    PairConfig(policy="band", min_similarity=0.1, max_similarity=0.6, seed=3),
    PairConfig(policy="random:0.5,nearest:0.3,band:0.2", seed=3),
    PairConfig(
        policy="direction",
        direction=TextDirection.of("a", "b", np.arange(6, dtype=np.float32)),
        direction_share=0.5,
        seed=3,
    ),
]


@pytest.fixture(scope="module")
def clip():
    return np.random.default_rng(1).standard_normal((NUM_ROWS, 6)).astype(np.float32)


@pytest.fixture(scope="module")
def graph(clip):
    return neighbour_graph(clip, 20)


def policy_of(config):
    return config.policy


@pytest.mark.parametrize("config", CONFIGS, ids=policy_of)
def test_pairs_stay_in_their_split_and_never_join_a_row_with_itself(config, clip, graph):
    rows = np.arange(0, NUM_ROWS, 2)
    source, target = sample_pairs(config, rows, 5000, clip=clip, neighbours=graph)
    assert source.dtype == target.dtype == np.int64
    assert np.isin(source, rows).all()
    assert np.isin(target, rows).all()
    assert (source != target).all()


@pytest.mark.parametrize("config", CONFIGS, ids=policy_of)
def test_any_draw_can_be_repeated_in_any_order_by_another_sampler(config, clip, graph):
    def sampler():
        return PairSampler(config, NUM_ROWS, neighbours=graph, units=unit_rows(clip))

    one, other = sampler(), sampler()
    draws = [one.draw(number, 37) for number in range(5)]
    for number in (4, 0, 2):
        again = other.draw(number, 37)
        assert (again[0] == draws[number][0]).all()
        assert (again[1] == draws[number][1]).all()
    assert (draws[0][1] != draws[1][1]).any()


def test_random_targets_are_uniform_over_the_other_rows():
    source, target = PairSampler(PairConfig(), 5).draw(0, 100_000)
    counts = np.zeros((5, 5))
    np.add.at(counts, (source, target), 1)
    assert (np.diag(counts) == 0).all()
    others = counts[~np.eye(5, dtype=bool)]
    # Standard deviation of a count is about 70; six of them.
    assert np.abs(others - 5000).max() < 420


@pytest.mark.parametrize("config", CONFIGS[:2], ids=policy_of)
def test_every_row_is_the_source_once_per_epoch_in_a_new_order(config, graph):
    sampler = PairSampler(config, NUM_ROWS, neighbours=graph)
    # Draws of 16 do not divide an epoch of 60: four epochs are 15 draws.
    sources = np.concatenate([sampler.draw(number, 16)[0] for number in range(15)])
    epochs = sources.reshape(4, NUM_ROWS)
    assert (np.sort(epochs, axis=1) == np.arange(NUM_ROWS)).all()
    assert (epochs[0] != epochs[1]).any()


def test_nearest_chooses_among_all_of_the_nearest_and_no_others(graph):
    config = PairConfig(policy="nearest", num_neighbours=4)
    source, target = PairSampler(config, NUM_ROWS, neighbours=graph).draw(0, 6000)
    for row in range(NUM_ROWS):
        assert set(target[source == row]) == set(graph.ids[row, :4])


def test_nearest_keeps_near_duplicates_out_when_asked(clip):
    clip = np.concatenate([clip, clip])
    graph = neighbour_graph(clip, 20)
    config = PairConfig(policy="nearest", max_similarity=0.99)
    source, target = PairSampler(config, 2 * NUM_ROWS, neighbours=graph).draw(0, 4000)
    assert (source % NUM_ROWS != target % NUM_ROWS).all()


def test_band_pairs_are_uniform_over_the_pairs_inside_the_bounds(clip):
    config = CONFIGS[2]
    units = unit_rows(clip)
    source, target = PairSampler(config, NUM_ROWS, units=units).draw(0, 100_000)
    cosines = units @ units.T
    np.fill_diagonal(cosines, -2)
    inside = (cosines >= 0.1) & (cosines <= 0.6)
    counts = np.zeros((NUM_ROWS, NUM_ROWS))
    np.add.at(counts, (source, target), 1)
    assert counts[~inside].sum() == 0
    expected = 100_000 / inside.sum()
    assert np.abs(counts[inside] - expected).max() < 6 * np.sqrt(expected)


def test_an_empty_band_is_refused_with_the_similarities_there_are(clip):
    config = PairConfig(policy="band", min_similarity=0.9999, max_similarity=1.0)
    with pytest.raises(PairError, match="percentiles"):
        PairSampler(config, NUM_ROWS, units=unit_rows(clip))


def test_nearest_without_a_graph_or_with_a_foreign_one_is_refused(graph):
    config = PairConfig(policy="nearest")
    with pytest.raises(PairError, match="needs a neighbour graph"):
        PairSampler(config, NUM_ROWS)
    with pytest.raises(PairError, match="restrict"):
        PairSampler(config, NUM_ROWS - 1, neighbours=graph)


def test_one_row_gives_no_pair():
    with pytest.raises(PairError, match="1 rows"):
        PairSampler(PairConfig(), 1)


def test_no_policy_pairs_near_duplicates_when_asked_not_to(clip):
    twice = np.concatenate([clip, clip])
    units, graph = unit_rows(twice), neighbour_graph(twice, 20)
    for config in CONFIGS:
        bounded = replace(config, max_similarity=0.95)
        sampler = PairSampler(bounded, 2 * NUM_ROWS, neighbours=graph, units=units)
        source, target = sampler.draw(0, 4000)
        assert np.vecdot(units[source], units[target]).max() <= 0.95 + 1e-6


def test_random_targets_without_near_duplicates_are_uniform_over_the_others(clip):
    units = unit_rows(clip)
    config = PairConfig(max_similarity=0.5)
    source, target = PairSampler(config, NUM_ROWS, units=units).draw(0, 60_000)
    assert (np.bincount(source, minlength=NUM_ROWS) == 1000).all()
    allowed = units[0] @ units.T <= 0.5
    counts = np.bincount(target[source == 0], minlength=NUM_ROWS)
    expected = 1000 / allowed.sum()
    assert counts[~allowed].sum() == 0
    assert np.abs(counts[allowed] - expected).max() < 6 * np.sqrt(expected)


def test_a_row_that_is_alike_to_all_others_gives_way_as_a_source():
    units = np.eye(2, dtype=np.float32)[[0] * 30 + [1] * 30]
    units[0] = unit_rows(np.ones((1, 2), np.float32))[0]
    source, _target = PairSampler(PairConfig(max_similarity=0.5), 60, units=units).draw(0, 600)
    assert not (source == 0).any()


def test_a_mixture_draws_its_policies_pairs_in_their_shares(clip, graph):
    units = unit_rows(clip)
    mixed = PairConfig(policy="nearest:0.3,band:0.7", num_neighbours=4, min_similarity=-0.9, seed=3)
    drawn = PairSampler(mixed, NUM_ROWS, neighbours=graph, units=units).draw(2, 10_000)
    parts = [
        PairSampler(replace(mixed, policy=policy), NUM_ROWS, neighbours=graph, units=units)
        for policy in ("nearest", "band")
    ]
    nearest, band = ((np.array(part.draw(2, 10_000)) == drawn).all(axis=0) for part in parts)
    assert (nearest | band).all()
    # Standard deviation of the share is 0.0046; a few pairs are drawn by both.
    assert nearest.mean() == pytest.approx(0.3, abs=0.03)
    assert band.mean() == pytest.approx(0.7, abs=0.03)


def test_direction_pairs_are_drawn_from_those_that_follow_the_text(clip):
    direction = TextDirection.of("face", "face with glasses", np.ones(6, np.float32))
    config = PairConfig(policy="direction", direction=direction, num_neighbours=3)
    rows = np.arange(0, NUM_ROWS, 2)
    source, target = sample_pairs(config, rows, 500, clip=clip)
    units = unit_rows(clip)
    difference = units[target] - units[source]
    alignment = (difference @ direction.unit) / np.linalg.norm(difference, axis=1)
    everyone = units[rows][None] - units[rows][:, None] + 1e-9
    alignments = (everyone @ direction.unit) / np.linalg.norm(everyone, axis=2)
    assert alignment.min() > np.percentile(alignments, 95)


def test_a_missing_graph_is_built_from_the_rows(clip, graph):
    config = PairConfig(policy="nearest", num_neighbours=4)
    given = PairSampler(config, NUM_ROWS, neighbours=graph).draw(1, 100)
    built = PairSampler(config, NUM_ROWS, units=unit_rows(clip)).draw(1, 100)
    assert (given[1] == built[1]).all()
