import numpy as np
import pytest

from pipeline.errors import PairError
from pipeline.pairs.graph import (
    join_graphs,
    limit_graph,
    neighbour_blocks,
    neighbour_graph,
    restrict_graph,
)


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


@pytest.mark.parametrize("block_rows", [0, 65_536])
def test_blocks_of_no_or_too_many_rows_are_refused(clip, block_rows):
    with pytest.raises(PairError, match=f"block_rows is {block_rows}"):
        neighbour_graph(clip, 5, block_rows=block_rows)


def test_a_graph_begun_later_goes_on_with_the_same_rows(clip):
    whole = neighbour_graph(clip, 6)
    blocks = list(neighbour_blocks(clip, 6, first_row=21, block_rows=8))
    assert [start for start, _block in blocks] == [21, 29, 37, 45]
    rest = join_graphs([block for _start, block in blocks])
    assert (rest.ids == whole.ids[21:]).all()


def test_bfloat16_candidates_give_the_graph_of_float32():
    generator = np.random.default_rng(5)
    clip = generator.standard_normal((4000, 12)) @ generator.standard_normal((12, 48)) + 2.0
    clip[500:700] = clip[500]
    clip = clip.astype(np.float32)
    fast, exact = (
        join_graphs([block for _start, block in neighbour_blocks(clip, 12, bfloat16=bfloat16)])
        for bfloat16 in (True, False)
    )
    assert fast.ids.dtype == exact.ids.dtype == np.int32
    assert np.allclose(fast.similarities, exact.similarities, atol=1e-6)
    distinct = np.r_[0:500, 700:4000]
    # Cosines that differ by rounding alone may change places.
    same = [
        np.isin(e, f).mean() for f, e in zip(fast.ids[distinct], exact.ids[distinct], strict=True)
    ]
    assert np.mean(same) > 0.999
    assert (fast.ids != np.arange(4000)[:, None]).all()
