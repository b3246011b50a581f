import numpy as np
import pytest
import torch

from pipeline.pairs.rows import unit_rows
from pipeline.pairs.top_products import TopProducts, in_threads

NUM_ROWS, WIDTH, K = 6000, 64, 16


def clusters(generator):
    """Low-rank rows around 30 centres, all on one side as CLIP embeddings are."""
    centres = generator.standard_normal((30, 12))
    latents = centres[generator.integers(30, size=NUM_ROWS)] + generator.standard_normal(
        (NUM_ROWS, 12)
    )
    return latents @ generator.standard_normal((12, WIDTH)) + 3.0


def uniform(generator):
    return generator.standard_normal((NUM_ROWS, WIDTH))


def exact(units, start, stop):
    cosines = units[start:stop].astype(np.float64) @ units.T.astype(np.float64)
    cosines[np.arange(stop - start), np.arange(start, stop)] = -2
    return cosines


@pytest.fixture(scope="module", params=[clusters, uniform], ids=["clusters", "uniform"])
def units(request):
    return unit_rows(request.param(np.random.default_rng(0)).astype(np.float32))


def test_rows_that_are_sure_have_their_exact_neighbours_in_order(units):
    found = TopProducts(units, K).search(1000, 1500)
    cosines = exact(units, 1000, 1500)
    best = -np.sort(-cosines, axis=1)[:, :K]
    assert found.sure.mean() > 0.99
    assert np.allclose(found.similarities[found.sure], best[found.sure], atol=1e-6)
    reached = np.take_along_axis(cosines, found.ids, axis=1)
    assert np.allclose(found.similarities[found.sure], reached[found.sure], atol=1e-6)


def test_no_row_is_its_own_neighbour_and_none_is_found_twice(units):
    found = TopProducts(units, K).search(0, 300)
    ids = found.ids[found.sure]
    assert (ids != np.arange(300)[found.sure][:, None]).all()
    assert (np.diff(np.sort(ids, axis=1), axis=1) > 0).all()


def test_blocks_do_not_change_what_is_found(units):
    top = TopProducts(units, K)
    whole, parts = top.search(100, 160), [top.search(100, 117), top.search(117, 160)]
    both = whole.sure & np.concatenate([part.sure for part in parts])
    assert both.any()
    ids = np.concatenate([part.ids for part in parts])
    assert (whole.ids[both] == ids[both]).all()


def test_many_equal_rows_are_not_sure_and_disturb_no_others(units, monkeypatch):
    monkeypatch.setattr("pipeline.pairs.top_products.MAX_CANDIDATES", 500)
    copied = units.copy()
    copied[:2000] = units[0]
    found = TopProducts(copied, K).search(1950, 2100)
    assert not found.sure[:50].any()
    best = -np.sort(-exact(copied, 1950, 2100), axis=1)[:, :K]
    assert found.sure[50:].mean() > 0.8
    assert np.allclose(found.similarities[found.sure], best[found.sure], atol=1e-6)


def test_threads_give_the_blocks_in_order_and_restore_their_number(units):
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        top, starts = TopProducts(units, K), range(0, 1000, 100)
        blocks = list(in_threads(top.search, starts, 950))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert [len(block.ids) for block in blocks] == [100] * 9 + [50]
    alone = top.search(300, 400)
    assert (blocks[3].ids[alone.sure] == alone.ids[alone.sure]).all()
