"""Plots as PNG bytes, drawn by matplotlib without a display.

Wide and tall enough to be read on a telephone: large letters, legends underneath.
"""

import io
import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from pipeline.shapes import Floats, Ints, assert_shape

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PLOT_SIZE = (6.4, 5.2)  # inches
PLOT_DPI = 144
FONT_PT = 12
TITLE_CHARACTERS = 58  # a line of the title
LEGEND_COLUMNS = 3
# Okabe and Ito 2008: told apart by people with any colour vision.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#F0E442")
LOG_RANGE = 20.0  # largest over smallest loss from which a logarithmic axis reads better


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
    return _finished(figure)


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
            axes.annotate(
                text, (across, up), xytext=(4, 4), textcoords="offset points", fontsize=FONT_PT - 3
            )
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    return _finished(figure)


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
    return _finished(figure, markerscale=2.5)


def _empty_plot(title: str) -> "tuple[Figure, Axes]":
    from matplotlib.figure import Figure

    figure = Figure(figsize=PLOT_SIZE, dpi=PLOT_DPI, layout="constrained")
    axes = figure.add_subplot()
    wrapped = textwrap.fill(title, TITLE_CHARACTERS)
    axes.set_title(wrapped, loc="left", parse_math=False, fontsize=FONT_PT)
    axes.tick_params(labelsize=FONT_PT - 1)
    axes.grid(visible=True, alpha=0.25, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _finished(figure: "Figure", *, markerscale: float = 1.0) -> bytes:
    """The plot with its legend underneath, as the bytes of a PNG file."""
    axes = figure.axes[0]
    axes.set_xlabel(axes.get_xlabel(), fontsize=FONT_PT)
    axes.set_ylabel(axes.get_ylabel(), fontsize=FONT_PT)
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(
        handles,
        labels,
        loc="outside lower center",
        ncols=LEGEND_COLUMNS,
        frameon=False,
        fontsize=FONT_PT - 1,
        markerscale=markerscale,
    )
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()
