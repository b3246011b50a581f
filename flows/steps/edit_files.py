"""Files that show how edits scored: a table, pictures of a few rows, curves."""

import csv
import io
import re
from collections.abc import Mapping, Sequence

import numpy as np

from flows.steps.edit_scores import SAMPLES, EditScores
from flows.steps.looking import TILE
from pipeline.images import encode_png, to_square
from pipeline.pictures import label_grid, mosaic
from pipeline.plots import tradeoff

TABLE_NAME, GRID_NAME, TRADEOFF_NAME = "edits.csv", "edits.png", "tradeoff.png"
SAMPLES_FOLDER = "edits"
AXES = {"x_label": "preservation of other attributes", "y_label": "success"}


def draw_scores(scores: EditScores) -> dict[str, bytes]:
    """A table (CSV), and edits of a few rows, together and prompt by prompt (PNG)."""
    files = {TABLE_NAME: _table(scores).encode(), GRID_NAME: encode_png(_grid(scores))}
    for number, (before, after) in enumerate(scores.samples.values()):
        if len(after):
            files[sample_name(scores, number)] = encode_png(_sample(before, after))
    return files


def sample_name(scores: EditScores, number: int) -> str:
    """Where the pictures of one prompt are, beside the table."""
    word = re.sub(r"\W+", "-", str(scores.prompts[number]["prompt"])).strip("-")[:60]
    return f"{SAMPLES_FOLDER}/{number + 1:03d}-{word}.png"


def draw_curve(curve: Sequence[Mapping[str, float]]) -> dict[str, bytes]:
    """The trade-off over strength and threshold (PNG), where a reader told success."""
    if not curve or "success" not in curve[0]:
        return {}
    thresholds = sorted({row["threshold"] for row in curve})
    # Points of the lines between would be labelled on top of each other.
    labelled = {thresholds[0], thresholds[-1]}
    series = {
        f"threshold {threshold:g}": [
            (
                row["preservation"],
                row["success"],
                f"{row['strength']:g}" if threshold in labelled else "",
            )
            for row in curve
            if row["threshold"] == threshold
        ]
        for threshold in thresholds
    }
    title = "Edits over all prompts; the figures at the points are strengths"
    return {TRADEOFF_NAME: tradeoff(series, title=title, **AXES)}


def _table(scores: EditScores) -> str:
    names = list(dict.fromkeys(name for row in scores.prompts for name in row))
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, names)
    writer.writeheader()
    writer.writerows(scores.prompts)
    writer.writerow({"prompt": "mean", **scores.mean})
    return buffer.getvalue()


def _sample(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Reconstructions above, edits below."""
    tiles = [to_square(picture, TILE) for picture in (*before, *after)]
    return mosaic(tiles, np.stack(np.divmod(np.arange(len(tiles)), len(before)), axis=1))


def _grid(scores: EditScores) -> np.ndarray:
    """A row a prompt: pairs of reconstruction and edit."""
    rows = []
    blank = np.full((TILE, TILE, 3), 255, dtype=np.uint8)
    for before, after in scores.samples.values():
        pairs = zip(before, after, strict=True)
        tiles = [to_square(picture, TILE) for pair in pairs for picture in pair]
        rows.append(tiles + [blank] * (2 * SAMPLES - len(tiles)))
    return label_grid(
        rows, row_labels=list(scores.samples), column_labels=["before", "after"] * SAMPLES
    )
