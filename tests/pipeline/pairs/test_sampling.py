import numpy as np
import pytest

from pipeline.errors import PairError
from pipeline.pairs.index import neighbour_graph, unit_rows
from pipeline.pairs.sampling import PairConfig, PairSampler, sample_pairs

NUM_ROWS = 60
CONFIGS = [
    PairConfig(policy="random", seed=3),
    PairConfig(policy="nearest", num_neighbours=4, seed=3),
    PairConfig(policy="band", min_similarity=0.1, max_similarity=0.6, seed=3),
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


def test_wrong_settings_are_refused_all_at_once():
    with pytest.raises(PairError, match=r"(?s)num_neighbours.*similarity bounds"):
        PairConfig(policy="band", num_neighbours=0, min_similarity=0.5, max_similarity=0.5)
    with pytest.raises(PairError, match="ignores similarity bounds"):
        PairConfig(policy="random", max_similarity=0.9)
