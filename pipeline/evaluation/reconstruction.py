"""How well pictures come back from their codes."""

import numpy as np

from pipeline.shapes import Pixels, assert_shape

WHITE = 255.0


def score_reconstructions(originals: Pixels, reconstructions: Pixels) -> float:
    """Mean over pictures of the peak signal-to-noise ratio.

    Args:
        originals: [N, H, W, 3] uint8.
        reconstructions: [N, H, W, 3] uint8.

    Returns:
        PSNR in dB, ``10 log10(255^2 / MSE)`` a picture; infinite where all are equal.

    Raises:
        ShapeError: the shapes differ.
    """
    assert_shape(reconstructions, originals.shape, "reconstructions")
    error = np.square(originals.astype(np.float32) - reconstructions).mean(axis=(1, 2, 3))
    with np.errstate(divide="ignore"):
        return float((10 * np.log10(WHITE**2 / error)).mean())
