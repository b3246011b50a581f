import importlib.util
from pathlib import Path

import numpy as np
import pytest

from pipeline.editing.apply import relevance_mask
from pipeline.editing.global_directions import global_direction
from pipeline.errors import PipelineError, ShapeError

GOLDEN = Path(__file__).resolve().parents[3] / "../shared/golden"


def golden_recipe():
    """The module that makes the inputs of the golden numbers."""
    spec = importlib.util.spec_from_file_location("fill", GOLDEN / "fill_recipe.py")
    recipe = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(recipe)
    return recipe


@pytest.mark.skipif(not GOLDEN.exists(), reason="../shared/golden is not on this machine")
def test_edited_codes_equal_those_of_the_published_code():
    recipe = golden_recipe()
    with np.load(GOLDEN / "global_directions.npz") as file:
        golden = {name: file[name] for name in file.files}
    fs3 = recipe.unit(31, (6048, 512))
    conv = golden["mindexs"].tolist()
    widths = golden["widths"].tolist()
    layers = [(i, widths[i]) for i in conv]
    std = np.concatenate([np.abs(recipe.normal(200 + i, (w,))) + 0.1 for i, w in layers])
    unit = golden["dt"].astype(np.float32)
    mask = relevance_mask(fs3, unit, threshold=0.1)
    assert mask.sum() == golden["num_c"]
    change = global_direction(fs3, unit, std.astype(np.float32), mask)
    places = np.cumsum([0, *widths])
    expected = np.concatenate([golden["boundary"][places[i] : places[i + 1]] for i in conv])
    assert np.abs(change - expected).max() < 1e-5 * np.abs(expected).max()
    offsets = dict(zip(conv, np.cumsum([0, *(w for _, w in layers)])[:-1].tolist(), strict=True))
    for layer in (6, 15):
        codes = recipe.normal(100 + layer, (3, widths[layer]), scale=2.0, shift=1.0)[0]
        part = change[offsets[layer] : offsets[layer] + widths[layer]]
        edited = codes + golden["alpha"][:, None] * part
        found = golden[f"codes_layer{layer}"][0]
        assert np.abs(edited - found).max() < 1e-5 * np.abs(found).max()


def test_the_most_relevant_channel_moves_by_its_standard_deviation():
    rs = np.eye(4, 3, dtype=np.float32)
    unit = np.array([0.6, -0.8, 0.0], dtype=np.float32)
    std = np.array([1.0, 2.0, 3.0, 4.0], dtype=np.float32)
    change = global_direction(rs, unit, std, relevance_mask(rs, unit, threshold=0.1))
    np.testing.assert_allclose(change, [0.75, -2.0, 0.0, 0.0], rtol=1e-6)


def test_a_text_without_relevant_channels_is_refused_with_the_largest_relevance():
    rs, unit = np.eye(4, 3, dtype=np.float32), np.array([0.6, -0.8, 0.0], dtype=np.float32)
    mask = relevance_mask(rs, unit, threshold=0.9)
    with pytest.raises(PipelineError, match=r"largest relevance is 0\.800"):
        global_direction(rs, unit, np.ones(4, np.float32), mask)


def test_other_widths_are_refused():
    rs, unit = np.eye(4, 3, dtype=np.float32), np.ones(3, dtype=np.float32)
    with pytest.raises(ShapeError, match="std"):
        global_direction(rs, unit, np.ones(3, np.float32), np.ones(4, bool))
