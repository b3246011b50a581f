import numpy as np
import pytest

from pipeline.errors import PairError
from pipeline.pairs.config import PairConfig, TextDirection
from pipeline.pairs.direction import aligned_targets, best_aligned
from pipeline.pairs.graph import neighbour_graph
from pipeline.pairs.rows import unit_rows

WIDTH = 32


def people(num_people, generator, *, glasses):
    """Rows of people, each once without glasses and once with: rows i and i + num_people."""
    faces = generator.standard_normal((num_people, WIDTH)) * 0.3 + generator.standard_normal(WIDTH)
    worn = faces + glasses + 0.02 * generator.standard_normal(faces.shape)
    return unit_rows(np.concatenate([faces, worn]).astype(np.float32))


@pytest.fixture
def glasses():
    return np.random.default_rng(7).standard_normal(WIDTH).astype(np.float32) * 0.2


@pytest.fixture
def units(glasses):
    return people(40, np.random.default_rng(1), glasses=glasses)


def written_out(units, direction, *, low=-1.0, high=1.0):
    """Alignments of all pairs from the definition: gain over the root of gain^2 + rest^2."""
    alignments = np.full((len(units), len(units)), -1.0)
    for i, source in enumerate(units):
        for j, target in enumerate(units):
            difference = (target - source).astype(np.float64)
            gain = difference @ direction
            rest = difference - gain * direction
            if i != j and low <= source @ target <= high:
                alignments[i, j] = gain / np.sqrt(gain**2 + rest @ rest)
    return alignments


def unit(vector):
    return vector / np.linalg.norm(vector)


def test_targets_are_those_of_the_formula_best_first(units, glasses):
    expected = written_out(units, unit(glasses))
    found = aligned_targets(units, unit(glasses), 5)
    best = -np.sort(-expected, axis=1)[:, :5]
    np.testing.assert_allclose(found.alignments, np.where(best > 0, best, -1), atol=2e-4)
    kept = found.ids >= 0
    rows = np.broadcast_to(np.arange(len(units))[:, None], kept.shape)
    np.testing.assert_allclose(
        expected[rows[kept], found.ids[kept]], found.alignments[kept], atol=2e-4
    )


def test_the_best_pair_of_a_face_is_the_same_face_with_glasses(units, glasses):
    found = aligned_targets(units, unit(glasses), 3)
    assert (found.ids[:40, 0] == np.arange(40, 80)).all()


def test_pairs_outside_the_bounds_are_left_out(units, glasses):
    cosines = units @ units.T
    found = aligned_targets(units, unit(glasses), 6, bounds=(0.2, 0.9))
    rows, places = np.nonzero(found.ids >= 0)
    used = cosines[rows, found.ids[rows, places]]
    assert used.min() >= 0.2
    assert used.max() <= 0.9


def test_the_walk_on_the_graph_finds_nearly_what_all_pairs_give():
    generator = np.random.default_rng(3)
    glasses = generator.standard_normal(WIDTH).astype(np.float32) * 0.2
    units = people(1000, generator, glasses=glasses)
    exact = aligned_targets(units, unit(glasses), 8)
    walked = aligned_targets(units, unit(glasses), 8, neighbours=neighbour_graph(units, 32))
    pairs = zip(exact.ids[:1000], walked.ids, strict=False)
    assert np.mean([np.isin(best, found).mean() for best, found in pairs]) > 0.8
    assert (walked.alignments <= exact.alignments + 1e-4).all()
    for ids in walked.ids:
        assert len(set(ids[ids >= 0])) == np.count_nonzero(ids >= 0)


def test_the_share_keeps_the_pairs_that_follow_best_of_all(units, glasses):
    direction = TextDirection.of("face", "face with glasses", glasses)
    config = PairConfig(
        policy="direction", direction=direction, num_neighbours=4, direction_share=0.2
    )
    kept = best_aligned(config, units, None)
    ranked = aligned_targets(units, direction.unit, 4)
    least_kept = ranked.alignments[kept >= 0].min()
    assert np.count_nonzero(kept >= 0) == np.ceil(0.2 * np.count_nonzero(ranked.ids >= 0))
    assert ranked.alignments[(kept < 0) & (ranked.ids >= 0)].max() <= least_kept


def test_a_direction_that_no_pair_follows_is_refused(units, glasses):
    direction = TextDirection.of("face", "face with glasses", glasses)
    config = PairConfig(policy="direction", direction=direction, max_similarity=-0.99)
    with pytest.raises(PairError, match=r"no pair .* leads from 'face' to 'face with glasses'"):
        best_aligned(config, units, None)
