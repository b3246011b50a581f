import numpy as np
import pytest

from pipeline.errors import PairError, ShapeError
from pipeline.pairs.index import build_index, index_from_bytes, index_to_bytes, search


@pytest.fixture
def clip():
    return np.random.default_rng(0).standard_normal((50, 8)).astype(np.float32) * 3


def cosines(clip):
    units = clip / np.linalg.norm(clip, axis=1, keepdims=True)
    return units @ units.T


def test_search_finds_the_rows_of_largest_cosine_whatever_their_length(clip):
    similarities, rows = search(build_index(clip), clip[:5] * 100, 4)
    expected = np.argsort(-cosines(clip)[:5], axis=1)[:, :4]
    assert (rows == expected).all()
    assert (rows[:, 0] == np.arange(5)).all()
    assert np.allclose(similarities, np.take_along_axis(cosines(clip)[:5], expected, 1), atol=1e-5)


def test_an_index_survives_the_way_through_bytes(clip):
    index = build_index(clip)
    again = index_from_bytes(index_to_bytes(index))
    for ours, theirs in zip(search(index, clip, 3), search(again, clip, 3), strict=True):
        assert (ours == theirs).all()


def test_cut_index_bytes_are_refused(clip):
    data = index_to_bytes(build_index(clip))
    with pytest.raises(PairError, match="rebuild"):
        index_from_bytes(data[: len(data) // 2])


@pytest.mark.parametrize("value", [0.0, np.nan, np.inf])
def test_a_row_without_direction_is_named(clip, value):
    clip[17] = value
    with pytest.raises(PairError, match="row 17"):
        build_index(clip)


def test_more_neighbours_than_rows_are_refused(clip):
    with pytest.raises(PairError, match="k is 51"):
        search(build_index(clip), clip, 51)


def test_queries_of_another_width_are_refused(clip):
    with pytest.raises(ShapeError, match="queries"):
        search(build_index(clip), clip[:, :4], 1)
