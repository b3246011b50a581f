import numpy as np
import pytest

from pipeline.errors import PairError
from pipeline.pairs.graph import limit_graph, neighbour_graph, restrict_graph


@pytest.fixture
def clip():
    return np.random.default_rng(0).standard_normal((50, 8)).astype(np.float32) * 3


def cosines(clip):
    units = clip / np.linalg.norm(clip, axis=1, keepdims=True)
    return units @ units.T


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


def test_more_neighbours_than_rows_are_refused(clip):
    with pytest.raises(PairError, match="50 rows have 49"):
        neighbour_graph(clip, 50)
