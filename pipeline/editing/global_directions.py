"""StyleCLIP's global directions: one change of S for a text, the same for every image.

Patashnik et al. 2021 ("StyleCLIP"), section 6, as the published code applies it: the paper's
equation 7 has neither the division by the largest relevance nor the channels' standard deviation.
"""

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import PipelineError
from pipeline.shapes import Floats, assert_shape

PUBLISHED_ALPHA = 3.0
"""The published choice for faces and cars."""
PUBLISHED_CHANNELS = 20
"""The published number of channels for faces; 100 for other domains."""


def global_direction(
    rs: Floats, direction_unit: Floats, std: Floats, mask: NDArray[np.bool_]
) -> Floats:
    """The change of S for a text at alpha 1.

    ``b_c = R_c / max |R| * sigma_c`` with ``R = rs . direction`` on the channels of `mask`, 0 on
    the others.

    Args:
        rs: [S, C] float32 relevance matrix, unit rows.
        direction_unit: [C] float32 unit text direction.
        std: [S] float32 standard deviation of each channel over the data.
        mask: [S] bool, the channels that may change: those with ``|R_c| >= beta``, or the k largest
            (`pipeline.editing.apply.relevance_mask` on the unit direction).

    Returns:
        [S] float32, to be added alpha times to any code.

    Raises:
        PipelineError: no channel may change: beta is too large for this text.
        ShapeError: widths differ.
    """
    assert_shape(rs, (None, None), "rs")
    assert_shape(direction_unit, (rs.shape[1],), "direction_unit")
    assert_shape(std, (len(rs),), "std")
    assert_shape(mask, (len(rs),), "mask")
    relevance = np.where(mask, rs @ direction_unit, 0.0)
    largest = np.abs(relevance).max()
    if largest == 0.0:
        reached = np.abs(rs @ direction_unit).max()
        raise PipelineError(
            f"no channel is relevant enough for this text: the largest relevance is {reached:.3f}; "
            "lower the threshold, or give a number of channels"
        )
    return (relevance / largest * std).astype(np.float32)
