"""Pictures for people: sizes, contents, refusals."""

import io

import numpy as np
import pytest
from PIL import Image

from pipeline.errors import ShapeError
from pipeline.pictures import PAPER, label_grid, loss_curve, scatter

BLUE = (0, 0, 255)


def solid(colour=BLUE, side=32) -> np.ndarray:
    return np.full((side, side, 3), colour, np.uint8)


def is_paper(pixels: np.ndarray) -> bool:
    return bool((pixels == PAPER).all())


def opened(png: bytes) -> np.ndarray:
    return np.array(Image.open(io.BytesIO(png)).convert("RGB"))


def test_sheet_shows_every_picture_at_its_scale():
    rows = [[solid()] * 3, [solid()] * 2]
    sheet = label_grid(rows, row_labels=["a", "b"], column_labels=["x", "y", "z"], scale=2)
    assert sheet.dtype == np.uint8
    assert (sheet == BLUE).all(axis=2).sum() == 5 * 64 * 64


def test_no_text_touches_the_edge_however_long_it_is():
    long = "a very long description of one face with sunglasses " * 3
    sheet = label_grid(
        [[solid()] * 2] * 2,
        row_labels=[long, "0123456789abcdef" * 8],
        column_labels=[long, "unterschiedlichkeitsbegriff"],
        captions=[[long, "0.123"], ["", "key/" + 40 * "x"]],
    )
    border = 2
    for edge in (sheet[:border], sheet[-border:], sheet[:, :border], sheet[:, -border:]):
        assert is_paper(edge)


def test_labels_are_drawn():
    bare = label_grid([[solid(PAPER)]], row_labels=[], column_labels=[])
    labelled = label_grid([[solid(PAPER)]], row_labels=["original"], column_labels=["smile"])
    assert is_paper(bare)
    assert not is_paper(labelled)
    assert labelled.shape[1] > bare.shape[1]


def test_texts_in_any_script_are_drawn():
    for text in ("naïve", "顔", "лицо", "😀", "line\nbreak", "\x00"):
        sheet = label_grid([[solid(PAPER)]], row_labels=[text], column_labels=[])
        assert not is_paper(sheet)


@pytest.mark.parametrize(
    ("rows", "row_labels", "column_labels", "captions", "message"),
    [
        ([], [], [], None, "got none"),
        ([[solid(), solid(side=16)]], [], [], None, "one size"),
        ([[solid()]], ["a", "b"], [], None, "2 row labels for 1 rows"),
        ([[solid()]], [], ["a", "b"], None, "2 column labels for 1 columns"),
        ([[solid()]], [], [], [["a", "b"]], "shaped like the pictures"),
    ],
)
def test_counts_that_do_not_match_are_refused(rows, row_labels, column_labels, captions, message):
    with pytest.raises(ValueError, match=message):
        label_grid(rows, row_labels=row_labels, column_labels=column_labels, captions=captions)


def test_loss_curve_draws_each_series_and_its_baseline():
    steps = np.arange(1, 50)
    one = loss_curve(steps, {"mse": 10 / steps}, baseline={}, title="losses")
    two = loss_curve(steps, {"mse": 10 / steps}, baseline={"mse": 4.0}, title="losses")
    assert opened(one).shape == opened(two).shape
    assert (opened(one) != opened(two)).any()


def test_loss_curve_takes_gaps_and_dollar_signs():
    png = loss_curve([0, 1, 2], {"a_b": [1.0, np.nan, 2.0]}, baseline={}, title="costs $5 and $6")
    assert not is_paper(opened(png))


def test_scatter_colours_groups_apart():
    points = np.random.default_rng(0).standard_normal((100, 2)).astype(np.float32)
    groups = np.repeat([0, 1], 50)
    picture = opened(scatter(points, groups, title="CLIP space", labels=["image", "text"]))
    vivid = picture[picture.max(axis=2) - picture.min(axis=2) > 100]
    assert (vivid[:, 2] > vivid[:, 0]).any()
    assert (vivid[:, 0] > vivid[:, 2]).any()


def test_scatter_refuses_points_that_are_not_in_the_plane():
    with pytest.raises(ShapeError, match="points"):
        scatter(np.zeros((5, 3), np.float32), np.zeros(5, int), title="", labels=["a"])
