import numpy as np
import pytest

from pipeline.errors import PairError, ShapeError
from pipeline.pairs.index import (
    FLAT_ROWS,
    KINDS,
    add_rows,
    build_index,
    bytes_per_row,
    choose_kind,
    empty_index,
    has_gpus,
    index_from_bytes,
    index_to_bytes,
    map_index,
    on_gpus,
    read_ahead,
    search,
    tune,
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


@pytest.fixture(scope="module")
def many():
    """5,000 rows of rank 16 in 64 dimensions, all on one side."""
    generator = np.random.default_rng(2)
    latents = generator.standard_normal((5000, 16)) @ generator.standard_normal((16, 64))
    return (latents + 2.0).astype(np.float32)


@pytest.fixture(scope="module", params=KINDS)
def indexed(request, many):
    return request.param, build_index(many, request.param)


def test_every_kind_reaches_its_target_at_the_least_effort(indexed, many):
    kind, index = indexed
    target = 0.9 if kind == "ivf8" else 0.99
    reached = tune(index, many, target=target)
    assert reached.recall >= target
    rows = np.linspace(0, len(many) - 1, 256).astype(int)
    exact = search(build_index(many), many[rows], 11)[1][:, 1:]
    found = search(index, many[rows], 11)[1]
    mean = np.mean([np.isin(e, f).mean() for e, f in zip(exact, found, strict=True)])
    assert reached.recall == pytest.approx(mean, abs=0.005)
    if kind == "ivf":
        index.nprobe = reached.effort // 2
        less = search(index, many[rows], 11)[1]
        assert np.mean([np.isin(e, f).mean() for e, f in zip(exact, less, strict=True)]) < target


def test_a_target_out_of_reach_is_answered_with_what_is_reached(many):
    index = build_index(many + 30.0, "ivf8")
    reached = tune(index, many + 30.0, target=1.0)
    assert 0.5 < reached.recall < 1.0
    assert reached.effort == index.nlist


def test_a_mapped_index_finds_what_the_built_one_finds(indexed, many, tmp_path):
    _kind, index = indexed
    tune(index, many, target=0.9)
    path = tmp_path / "index.faiss"
    path.write_bytes(index_to_bytes(index))
    mapped = map_index(path)
    for row in range(0, len(many), 1000):
        read_ahead(mapped, many[row])  # asks for pages beside those of the lists, and harms none
    for ours, theirs in zip(search(index, many[:9], 5), search(mapped, many[:9], 5), strict=True):
        assert (ours == theirs).all()


def test_a_cut_index_file_is_refused(many, tmp_path):
    path = tmp_path / "index.faiss"
    data = index_to_bytes(build_index(many))
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(PairError, match=r"index\.faiss is not a whole FAISS index"):
        map_index(path)


def test_rows_added_later_are_numbered_after_those_there_are(indexed, many):
    kind, _index = indexed
    grown = empty_index(kind, many[:4000])
    add_rows(grown, many[:4000])
    grown = index_from_bytes(index_to_bytes(grown))
    add_rows(grown, many[4000:])
    assert grown.ntotal == 5000
    tune(grown, many, target=0.9)
    assert (search(grown, many[4100:4110], 1)[1][:, 0] == np.arange(4100, 4110)).all()


def test_the_kind_follows_the_number_of_rows_and_the_memory():
    assert choose_kind(FLAT_ROWS, 512) == "flat"
    assert choose_kind(FLAT_ROWS + 1, 512) == "ivf"
    assert choose_kind(1000, 512, 1000 * bytes_per_row("ivf", 512)) == "ivf"
    assert choose_kind(1000, 512, 1000 * bytes_per_row("ivf", 512) - 1) == "ivf8"
    with pytest.raises(PairError, match=r"520,000 bytes .* the memory budget is 519,999"):
        choose_kind(1000, 512, 519_999)


def test_an_index_takes_the_memory_that_was_told(indexed, many):
    kind, index = indexed
    told = len(many) * bytes_per_row(kind, 64)
    cells = 4 * 64 * getattr(index, "nlist", 0)
    assert len(index_to_bytes(index)) - cells == pytest.approx(told, rel=0.05)


def test_without_a_gpu_an_index_stays_where_it_is(clip):
    index = build_index(clip)
    assert has_gpus() or on_gpus(index) is index


@pytest.mark.gpu
def test_gpus_find_what_the_processor_finds(many):
    if not has_gpus():
        pytest.skip("faiss-gpu is not installed")
    index = build_index(many)
    ours, theirs = search(on_gpus(index), many[:50], 10), search(index, many[:50], 10)
    assert np.allclose(ours[0], theirs[0], atol=1e-4)
    assert (ours[1] == theirs[1]).mean() > 0.99
