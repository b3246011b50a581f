import pytest
import torch

from pipeline.errors import ShapeError
from pipeline.models.s_layout import SLayout, config_f_channels

TOTALS = {1024: 6048, 512: 5952, 256: 5760, 128: 5376, 64: 4608, 32: 3584}


def layout_of(size, multiplier=2):
    return SLayout.of_channels(size, config_f_channels(size, multiplier))


@pytest.mark.parametrize(("size", "total"), TOTALS.items())
def test_published_sizes_have_their_published_widths(size, total):
    layout = layout_of(size)
    assert layout.total == total
    assert layout.layers[-1].resolution == size
    assert layout.group("coarse") == slice(0, 1536)
    assert layout.group("medium") == slice(1536, 3584)
    assert layout.group("fine") == slice(3584, total)


def test_small_layouts_are_prefixes_of_the_largest():
    largest = layout_of(1024)
    for size in TOTALS:
        layout = layout_of(size)
        assert largest.layers[: len(layout.layers)] == layout.layers


def test_multiplier_one_is_narrower_from_64_px():
    layout = layout_of(1024, multiplier=1)
    assert layout.total == 5072
    assert layout.widths[:8] == (512,) * 8
    assert layout.widths[-1] == 16


def test_layers_know_their_place():
    layer = layout_of(1024).layers[10]
    assert (layer.index, layer.w_row, layer.resolution, layer.width) == (10, 10, 128, 256)
    assert layer.columns == slice(5120, 5376)
    assert layer.group == "fine"


def test_split_is_the_inverse_of_concatenation():
    layout = layout_of(64)
    s = torch.randn(2, layout.total)
    parts = layout.split(s)
    assert [part.shape[1] for part in parts] == list(layout.widths)
    assert torch.equal(torch.cat(parts, dim=1), s)


def test_sizes_that_no_generator_has_are_refused():
    with pytest.raises(ShapeError, match="16 px"):
        SLayout.of_channels(16, (512, 512, 512))
    with pytest.raises(ShapeError, match="expected 17"):
        SLayout(1024, (512,) * 9)
