"""Contact sheets: pictures with labels, as pixels; drawn by PIL."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
from PIL import Image, ImageDraw

from pipeline.lettering import Font, Lines, load_font, shown, wrapped
from pipeline.shapes import Ints, Pixels, assert_shape

MIN_FONT_PX = 13
FONT_SHARE = 0.085  # of a picture's width
LINE_SHARE = 1.3  # of the font's size
ROW_LABEL_EM = 11  # a row label is wrapped at this width, in font sizes
WORD_EM = 9  # longer words are broken, shorter ones widen their column
INK = (32, 33, 36)
FAINT_INK = (95, 99, 104)
PAPER = (255, 255, 255)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Sheet:
    """Measures of a contact sheet in pixels, and its texts as lines."""

    picture: tuple[int, int]
    cell_width: int
    row_height: int
    font: Font
    line: int
    gap: int
    left: int
    top: int
    row_labels: list[Lines]
    column_labels: list[Lines]
    captions: list[list[Lines]]

    @property
    def num_columns(self) -> int:
        """Columns of the widest row."""
        return max(len(self.column_labels), *(len(row) for row in self.captions))

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the sheet."""
        width = self.left + self.num_columns * (self.cell_width + self.gap)
        return width, self.top + len(self.captions) * (self.row_height + self.gap)

    def corner(self, row: int, column: int) -> tuple[int, int]:
        """Upper left corner of a cell."""
        x = self.left + column * (self.cell_width + self.gap)
        return x, self.top + row * (self.row_height + self.gap)


def label_grid(
    rows: Sequence[Sequence[Pixels]],
    *,
    row_labels: Sequence[str],
    column_labels: Sequence[str],
    captions: Sequence[Sequence[str]] | None = None,
    scale: int = 1,
) -> Pixels:
    """Contact sheet: pictures in a grid, labels at the left and on top, captions underneath.

    Texts are wrapped, never cut: the sheet grows with them. Characters that the font lacks are
    written as escapes.

    Args:
        rows: pictures uint8 [H, W, 3], all of one size; rows may differ in length.
        row_labels: one for each row, or none at all.
        column_labels: one for each column, or none at all.
        captions: one text for each picture, shaped like `rows`.
        scale: enlargement of the pictures by whole pixels, for small ones.

    Returns:
        uint8 [H, W, 3].

    Raises:
        ValueError: for no picture, pictures of different sizes, or counts that do not match.
    """
    texts = captions or [["" for _ in row] for row in rows]
    _check_counts(rows, row_labels, column_labels, texts)
    sheet = _measured(rows, row_labels, column_labels, texts, scale)
    canvas = Image.new("RGB", sheet.size, PAPER)
    draw = ImageDraw.Draw(canvas)
    for column, lines in enumerate(sheet.column_labels):
        x = sheet.corner(0, column)[0] + sheet.cell_width / 2
        # Labels of one line stand right above their column, next to those of several lines.
        _write(draw, (x, sheet.top - sheet.gap - len(lines) * sheet.line), lines, sheet, "ma", INK)
    for number, row in enumerate(rows):
        if sheet.row_labels:
            lines = sheet.row_labels[number]
            middle = sheet.corner(number, 0)[1] + sheet.picture[1] / 2 - len(lines) * sheet.line / 2
            start = max(middle, sheet.corner(number, 0)[1])
            _write(draw, (sheet.left - 2 * sheet.gap, start), lines, sheet, "ra", INK)
        for column, pixels in enumerate(row):
            x, y = sheet.corner(number, column)
            picture = Image.fromarray(pixels).resize(sheet.picture, Image.Resampling.NEAREST)
            canvas.paste(picture, (x + (sheet.cell_width - sheet.picture[0]) // 2, y))
            below = (x + sheet.cell_width / 2, y + sheet.picture[1] + sheet.gap // 2)
            _write(draw, below, sheet.captions[number][column], sheet, "ma", FAINT_INK)
    return np.array(canvas)


def mosaic(tiles: Sequence[Pixels], cells: Ints) -> Pixels:
    """Pictures in the cells of a grid, without gaps or labels; free cells stay white.

    Args:
        tiles: N pictures uint8 [H, W, 3], all of one size.
        cells: [N, 2] row and column of each.

    Returns:
        uint8 [rows * H, columns * W, 3].
    """
    assert_shape(cells, (len(tiles), 2), "cells")
    height, width = tiles[0].shape[:2]
    num_rows, num_columns = (int(last) + 1 for last in cells.max(axis=0))
    sheet = np.full((num_rows * height, num_columns * width, 3), PAPER, dtype=np.uint8)
    for tile, (row, column) in zip(tiles, cells * (height, width), strict=True):
        sheet[row : row + height, column : column + width] = tile
    return sheet


def _check_counts(
    rows: Sequence[Sequence[Pixels]],
    row_labels: Sequence[str],
    column_labels: Sequence[str],
    captions: Sequence[Sequence[str]],
) -> None:
    shapes = {pixels.shape for row in rows for pixels in row}
    if len(shapes) != 1:
        raise ValueError(
            f"a sheet needs pictures of one size, got {sorted(shapes) or 'none'}; fit them first"
        )
    widest = max(len(row) for row in rows)
    if row_labels and len(row_labels) != len(rows):
        raise ValueError(f"{len(row_labels)} row labels for {len(rows)} rows; give one for each")
    if column_labels and len(column_labels) != widest:
        raise ValueError(
            f"{len(column_labels)} column labels for {widest} columns; give one for each"
        )
    if [len(row) for row in captions] != [len(row) for row in rows]:
        raise ValueError("captions must be shaped like the pictures; give one for each")


def _measured(
    rows: Sequence[Sequence[Pixels]],
    row_labels: Sequence[str],
    column_labels: Sequence[str],
    captions: Sequence[Sequence[str]],
    scale: int,
) -> _Sheet:
    height, width = (side * scale for side in rows[0][0].shape[:2])
    font_px = max(MIN_FONT_PX, round(FONT_SHARE * width))
    font = load_font(font_px)
    gap = max(6, font_px // 2)
    over_cells = [shown(text, font) for text in chain(column_labels, *captions)]
    longest_word = max((font.getlength(w) for text in over_cells for w in text.split()), default=0)
    cell_width = round(max(width, min(longest_word, WORD_EM * font_px)) + 1)
    beside = [wrapped(text, font, ROW_LABEL_EM * font_px) for text in row_labels]
    above = [wrapped(text, font, cell_width) for text in column_labels]
    below = [[wrapped(text, font, cell_width) for text in row] for row in captions]
    line = round(LINE_SHARE * font_px)
    caption = max(len(lines) for row in below for lines in row) * line
    label_width = max((round(font.getlength(t)) for ls in beside for t in ls), default=0)
    return _Sheet(
        picture=(width, height),
        cell_width=cell_width,
        row_height=max(
            height + caption + (gap // 2 if caption else 0),
            *(len(lines) * line for lines in beside),
            0,
        ),
        font=font,
        line=line,
        gap=gap,
        left=gap + (label_width + 2 * gap if label_width else 0),
        top=2 * gap + max((len(lines) for lines in above), default=0) * line,
        row_labels=beside,
        column_labels=above,
        captions=below,
    )


def _write(
    draw: ImageDraw.ImageDraw,
    start: tuple[float, float],
    lines: Lines,
    sheet: _Sheet,
    anchor: str,
    ink: tuple[int, int, int],
) -> None:
    """Lines of text one under the other; `anchor` as in PIL: ``m`` centred, ``r`` flush right."""
    x, y = start
    for number, text in enumerate(lines):
        draw.text((x, y + number * sheet.line), text, fill=ink, font=sheet.font, anchor=anchor)
