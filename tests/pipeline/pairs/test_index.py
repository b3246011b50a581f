import numpy as np
import pytest

from pipeline.errors import PairError, ShapeError
from pipeline.pairs.index import (
    build_index,
    index_from_bytes,
    index_to_bytes,
    limit_graph,
    neighbour_graph,
    restrict_graph,
    search,
)


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


@pytest.mark.parametrize("block_rows", [1, 7, 50, 1000])
def test_the_graph_leaves_out_the_row_itself_and_does_not_depend_on_blocks(clip, block_rows):
    graph = neighbour_graph(clip, 6, block_rows=block_rows)
    expected = cosines(clip)
    np.fill_diagonal(expected, -2)
    assert (graph.ids == np.argsort(-expected, axis=1)[:, :6]).all()
    assert graph.ids.dtype == np.int32
    assert graph.similarities.dtype == np.float32


def test_duplicates_are_neighbours_of_each_other_and_never_of_themselves(clip):
    clip[:20] = clip[0]
    graph = neighbour_graph(clip, 5)
    assert (graph.ids != np.arange(50)[:, None]).all()
    assert (graph.ids[:20] < 20).all()
    assert (graph.similarities <= 1.0).all()


def test_a_restricted_graph_holds_the_surviving_edges_in_new_numbers(clip):
    graph = neighbour_graph(clip, 10)
    rows = np.array([3, 40, 7, 12, 33, 21])
    restricted = restrict_graph(graph, rows)
    for position, row in enumerate(rows):
        kept = [neighbour for neighbour in graph.ids[row] if neighbour in rows]
        found = restricted.ids[position]
        assert rows[found[: len(kept)]].tolist() == kept
        assert (found[len(kept) :] == -1).all()


def test_a_limited_graph_holds_the_edges_inside_the_bounds(clip):
    limited = limit_graph(neighbour_graph(clip, 10), 0.2, 0.5)
    inside = limited.ids >= 0
    assert inside.any()
    assert (~inside).any()
    assert ((limited.similarities[inside] >= 0.2) & (limited.similarities[inside] <= 0.5)).all()


@pytest.mark.parametrize("value", [0.0, np.nan, np.inf])
def test_a_row_without_direction_is_named(clip, value):
    clip[17] = value
    with pytest.raises(PairError, match="row 17"):
        build_index(clip)


def test_more_neighbours_than_rows_are_refused(clip):
    with pytest.raises(PairError, match="50 rows have 49"):
        neighbour_graph(clip, 50)
    with pytest.raises(PairError, match="k is 51"):
        search(build_index(clip), clip, 51)


def test_queries_of_another_width_are_refused(clip):
    with pytest.raises(ShapeError, match="queries"):
        search(build_index(clip), clip[:, :4], 1)
