"""Letters of all shapes, names for arrays, and the check at the border of public functions.

N  rows: images, codes or pairs of one batch
C  width of a CLIP embedding (512 for ViT-B/32)
S  style channels of a generator, toRGB excluded (6048 at 1024 px)
L  rows of a W+ code (18 at 1024 px)
D  style_dim, the width of w (512)
H  height of an image in pixels
W  width of an image in pixels
K  neighbours per row

Docstrings write ``[N, L, D] float32``; images are ``[N, 3, H, W] float32`` in -1..1 or
``[N, H, W, 3] uint8``.
"""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import ShapeError

Floats = NDArray[np.float32]
"""float32 numbers."""
Ints = NDArray[np.integer[Any]]
"""Row numbers, counts, token ids."""
Pixels = NDArray[np.uint8]
"""sRGB values 0..255, channels last."""


class HasShape(Protocol):
    """A numpy array, a torch tensor, or anything else with a shape."""

    @property
    def shape(self) -> Sequence[int]:
        """Length of each axis."""
        ...


def assert_shape(array: HasShape, expected: Sequence[int | None], name: str) -> None:
    """Refuse an array of another shape.

    Args:
        array: numpy array or torch tensor.
        expected: length of each axis; None stands for any length.
        name: what the caller calls the array, for the message.

    Raises:
        ShapeError: with both shapes; the free axes of `expected` are written as ``*``.
    """
    shape = tuple(array.shape)
    fits = len(shape) == len(expected) and all(
        want is None or have == want for have, want in zip(shape, expected, strict=True)
    )
    if not fits:
        wanted = ", ".join("*" if want is None else str(want) for want in expected)
        found = ", ".join(str(have) for have in shape)
        raise ShapeError(f"{name} has shape [{found}], expected [{wanted}]")
