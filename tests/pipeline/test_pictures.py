"""Pictures for people: sizes, contents, refusals."""

import numpy as np
import pytest

from pipeline.pictures import PAPER, label_grid, mosaic

BLUE = (0, 0, 255)


def solid(colour=BLUE, side=32) -> np.ndarray:
    return np.full((side, side, 3), colour, np.uint8)


def is_paper(pixels: np.ndarray) -> bool:
    return bool((pixels == PAPER).all())


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


def test_a_mosaic_has_every_tile_in_its_cell_and_white_elsewhere():
    red, blue = solid((255, 0, 0), 4), solid(BLUE, 4)
    sheet = mosaic([red, blue], np.array([[1, 0], [0, 2]]))
    assert sheet.shape == (8, 12, 3)
    assert (sheet[4:, :4] == red).all()
    assert (sheet[:4, 8:] == blue).all()
    assert is_paper(sheet[:4, :8])
