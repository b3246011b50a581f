"""Pictures for people: contact sheets as pixels, plots as PNG bytes.

Sheets are drawn by PIL; plots by matplotlib, without a display.
"""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike
from PIL import Image, ImageDraw

from pipeline.lettering import Font, Lines, load_font, shown, wrapped
from pipeline.shapes import Floats, Ints, Pixels, assert_shape

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MIN_FONT_PX = 13
FONT_SHARE = 0.085  # of a picture's width
LINE_SHARE = 1.3  # of the font's size
ROW_LABEL_EM = 11  # a row label is wrapped at this width, in font sizes
WORD_EM = 9  # longer words are broken, shorter ones widen their column
INK = (32, 33, 36)
FAINT_INK = (95, 99, 104)
PAPER = (255, 255, 255)

PLOT_SIZE = (8.0, 4.8)  # inches
PLOT_DPI = 120
# Okabe and Ito 2008: told apart by people with any colour vision.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#F0E442")
LOG_RANGE = 20.0  # largest over smallest loss from which a logarithmic axis reads better


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


def loss_curve(
    steps: ArrayLike,
    series: Mapping[str, ArrayLike],
    *,
    baseline: Mapping[str, float],
    title: str,
    x_label: str = "step",
) -> bytes:
    """Losses over training steps or time, with dashed lines for what they are to beat.

    Args:
        steps: [T] step numbers, or times.
        series: name -> [T] values; values that are not finite leave a gap.
        baseline: name -> value; one of the same name as a series gets its colour.
        title: above the plot.
        x_label: what `steps` are.

    Returns:
        The bytes of a PNG file.
    """
    figure, axes = _empty_plot(title)
    colours = {
        name: COLOURS[number % len(COLOURS)]
        for number, name in enumerate(dict.fromkeys([*series, *baseline]))
    }
    for name, values in series.items():
        axes.plot(steps, values, label=name, color=colours[name], linewidth=1.6)
    for name, value in baseline.items():
        axes.axhline(
            value,
            label=f"{name}, zero predictor" if name in series else name,
            color=colours[name],
            linestyle="--",
            linewidth=1.2,
        )
    values = np.concatenate([np.ravel(v) for v in [*series.values(), [*baseline.values()]]])
    values = values[np.isfinite(values)]
    if values.size and values.min() > 0 and values.max() / values.min() > LOG_RANGE:
        axes.set_yscale("log")
    axes.set_xlabel(x_label)
    axes.set_ylabel("loss")
    axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1.01, 1.0))
    return _png(figure)


def tradeoff(
    series: Mapping[str, Sequence[tuple[float, float, str]]],
    *,
    title: str,
    x_label: str,
    y_label: str,
) -> bytes:
    """What is gained against what is lost: one line a series, a label at each of its points.

    Args:
        series: name -> points (x, y, label), in the order in which they are joined.
        title: above the plot.
        x_label: what x is.
        y_label: what y is.

    Returns:
        The bytes of a PNG file.
    """
    figure, axes = _empty_plot(title)
    for number, (name, points) in enumerate(series.items()):
        colour = COLOURS[number % len(COLOURS)]
        x, y = [point[0] for point in points], [point[1] for point in points]
        axes.plot(x, y, "o-", label=name, color=colour, linewidth=1.4, markersize=4)
        for across, up, text in points:
            axes.annotate(text, (across, up), xytext=(4, 4), textcoords="offset points", fontsize=8)
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1.01, 1.0))
    return _png(figure)


def scatter(points: Floats, groups: Ints, *, title: str, labels: Sequence[str]) -> bytes:
    """Points in the plane, coloured by group.

    Args:
        points: [N, 2].
        groups: [N] numbers into `labels`.
        title: above the plot.
        labels: name of each group, for the legend.

    Returns:
        The bytes of a PNG file.

    Raises:
        ShapeError: if `points` is not [N, 2] or `groups` not [N].
    """
    assert_shape(points, (None, 2), "points")
    assert_shape(groups, (len(points),), "groups")
    figure, axes = _empty_plot(title)
    for number, label in enumerate(labels):
        x, y = points[groups == number].T
        colour = COLOURS[number % len(COLOURS)]
        axes.scatter(x, y, s=9, alpha=0.6, linewidths=0, color=colour, label=label)
    axes.set_axis_off()
    axes.set_aspect("equal", adjustable="datalim")
    axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1.01, 1.0), markerscale=2.5)
    return _png(figure)


def _empty_plot(title: str) -> "tuple[Figure, Axes]":
    from matplotlib.figure import Figure

    figure = Figure(figsize=PLOT_SIZE, dpi=PLOT_DPI, layout="constrained")
    axes = figure.add_subplot()
    axes.set_title(title, loc="left", parse_math=False)
    axes.grid(visible=True, alpha=0.25, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _png(figure: "Figure") -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()
