"""How much each style channel moves the CLIP embedding, estimated without rendering an image."""

from dataclasses import dataclass

import numpy as np

from pipeline.errors import PairError
from pipeline.pairs.rows import MIN_NORM, unit_rows
from pipeline.shapes import Floats, assert_shape


@dataclass(frozen=True, kw_only=True, slots=True)
class RelevanceConfig:
    """Settings of `regressed_relevance`."""

    ridge: float = 0.1
    """Penalty, as a share of a channel's variance. Larger values share an effect among correlated
    channels instead of giving it to one; towards infinity the rows become plain covariances."""

    block_rows: int = 4096
    """Rows accumulated at once; memory beside the inputs grows with this and with S x S."""

    def __post_init__(self) -> None:
        if self.ridge <= 0 or self.block_rows < 1:
            raise PairError(
                f"ridge is {self.ridge} and block_rows {self.block_rows}: both must be positive"
            )


def regressed_relevance(clip: Floats, s: Floats, config: RelevanceConfig | None = None) -> Floats:
    """Estimate the relevance matrix from cached vectors alone.

    With ``U`` the unit CLIP rows and ``Z`` the z-scored style codes, both centred,

        ``R = (Z'Z / N + ridge I)^-1 Z'U / N``,  each row then divided by its length.

    This is the ridge regression of CLIP differences on style differences over all pairs of rows
    (sums over all pairs of differences are the centred sums, times 2N). Row c is the direction in
    which CLIP moves when channel c alone moves by one standard deviation: what StyleCLIP (Patashnik
    et al. 2021, section 6) measures by rendering ``mean +- 5 std`` of one channel.

    Args:
        clip: [N, C] float32, of any length.
        s: [N, S] float32 style codes of the same rows.
        config: penalty and block size.

    Returns:
        [S, C] float32, unit rows; rows of channels that never vary are zero.

    Raises:
        PairError: fewer than two rows, or rows without a direction.
        ShapeError: the two have different numbers of rows.
    """
    config = config or RelevanceConfig()
    assert_shape(s, (len(clip), None), "s")
    if len(clip) < 2:  # noqa: PLR2004 - a difference needs two rows
        raise PairError(f"relevance needs at least 2 rows, got {len(clip)}")
    units = unit_rows(clip)
    gram, cross = _centred_products(units, s, config.block_rows)
    gram.flat[:: len(gram) + 1] += config.ridge
    relevance = np.linalg.solve(gram, cross)
    lengths = np.linalg.norm(relevance, axis=1, keepdims=True)
    unit_relevance = np.where(lengths > MIN_NORM, relevance / np.maximum(lengths, MIN_NORM), 0.0)
    return unit_relevance.astype(np.float32)


def _centred_products(units: Floats, s: Floats, block_rows: int) -> tuple[np.ndarray, np.ndarray]:
    mean, std = s.mean(axis=0, dtype=np.float64), s.std(axis=0, dtype=np.float64)
    scale = np.where(std > MIN_NORM, 1.0 / np.maximum(std, MIN_NORM), 0.0)
    centre = units.mean(axis=0, dtype=np.float64)
    gram = np.zeros((s.shape[1], s.shape[1]))
    cross = np.zeros((s.shape[1], units.shape[1]))
    for start in range(0, len(s), block_rows):
        block = slice(start, start + block_rows)
        z = (s[block] - mean) * scale
        gram += z.T @ z
        cross += z.T @ (units[block] - centre)
    return gram / len(s), cross / len(s)
