"""How well images and texts lie on top of each other: embeddings against differences of them.

DeltaEdit (Lyu et al. 2023), figure 2: CLIP keeps images and texts apart, but their differences
("delta space") mix, which is why a mapper trained on image differences obeys text differences.
"""

from typing import NamedTuple

import numpy as np

from pipeline.errors import ShapeError
from pipeline.shapes import Floats, assert_shape

BLOCK_ROWS = 1024
TSNE_PERPLEXITY = 30.0


class Alignment(NamedTuple):
    """Numbers of one space; paired rows describe the same thing."""

    paired_cosine: float
    """Mean cosine between an image row and its text row."""
    modality_gap: float
    """Distance between the mean image row and the mean text row."""
    separability: float
    """Share of rows on their own modality's side of the plane halfway between the means; 0.5 means
    that the modalities cannot be told apart along the line through their means."""
    recall_at_1: float
    """Share of image rows whose most similar text row is their own."""


def alignment(image: Floats, text: Floats) -> Alignment:
    """Measure one space.

    Args:
        image: [N, C] float32 image embeddings or differences, as they are (means are not of unit
            rows; cosines do not depend on length).
        text: [N, C] float32, row i paired with image row i.

    Raises:
        ShapeError: the two differ in shape, are empty, or have a row without a direction.
    """
    assert_shape(image, (None, None), "image")
    assert_shape(text, image.shape, "text")
    if not len(image):
        raise ShapeError("alignment of no rows: give at least one pair")
    image_mean, text_mean = image.mean(axis=0, dtype=float), text.mean(axis=0, dtype=float)
    axis = image_mean - text_mean
    halfway = (image_mean + text_mean) @ axis / 2
    own_side = np.concatenate([image @ axis > halfway, text @ axis <= halfway])
    image_units, text_units = _units(image, "image"), _units(text, "text")
    return Alignment(
        paired_cosine=float(np.vecdot(image_units, text_units).mean()),
        modality_gap=float(np.linalg.norm(axis)),
        separability=float(own_side.mean()),
        recall_at_1=_recall_at_1(image_units, text_units),
    )


def tsne(image: Floats, text: Floats, *, seed: int = 0) -> Floats:
    """Points for a picture of one space: scikit-learn's t-SNE from a PCA start, both modalities.

    Args:
        image: [N, C] float32.
        text: [M, C] float32.
        seed: of the optimisation.

    Returns:
        [N + M, 2] float32, the image rows first.

    Raises:
        ShapeError: the widths differ, or there are fewer than three rows.
    """
    from sklearn.manifold import TSNE

    assert_shape(image, (None, None), "image")
    assert_shape(text, (None, image.shape[1]), "text")
    rows = np.concatenate([image, text]).astype(np.float32)
    if len(rows) < 3:  # noqa: PLR2004 - two points have no arrangement
        raise ShapeError(f"t-SNE of {len(rows)} rows: give at least 3")
    perplexity = min(TSNE_PERPLEXITY, (len(rows) - 1) / 3)
    points = TSNE(init="pca", perplexity=perplexity, random_state=seed).fit_transform(rows)
    return points.astype(np.float32)


def _units(rows: Floats, name: str) -> np.ndarray:
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    if not lengths.all():
        row = int(lengths.argmin())
        raise ShapeError(f"{name} row {row} has length 0, so no direction: leave it out")
    return rows / lengths


def _recall_at_1(image_units: np.ndarray, text_units: np.ndarray) -> float:
    hits = 0
    for start in range(0, len(image_units), BLOCK_ROWS):
        nearest = (image_units[start : start + BLOCK_ROWS] @ text_units.T).argmax(axis=1)
        hits += int(np.count_nonzero(nearest == np.arange(start, start + len(nearest))))
    return hits / len(image_units)
