"""Frechet distance of two sets of features (Heusel et al. 2017, "TTUR", equation 6): FID."""

import numpy as np

from pipeline.errors import ShapeError
from pipeline.shapes import Floats, assert_shape


def frechet_distance(one: Floats, other: Floats) -> float:
    """Distance of the normal distributions fitted to two sets of features.

    Values compare only for one extractor of features and for sets of one size: small sets give
    larger distances.

    Args:
        one: [N, C] float32.
        other: [M, C] float32.

    Returns:
        ``|m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2))``, 0 or more.

    Raises:
        ShapeError: the widths differ, or a set has fewer than two rows.
    """
    assert_shape(one, (None, None), "one")
    assert_shape(other, (None, one.shape[1]), "other")
    if min(len(one), len(other)) < 2:  # noqa: PLR2004 - one row has no covariance
        raise ShapeError(f"covariances of {len(one)} and {len(other)} rows: give at least 2")
    first, second = (np.cov(rows, rowvar=False, dtype=np.float64) for rows in (one, other))
    apart = np.square(one.mean(axis=0, dtype=np.float64) - other.mean(axis=0, dtype=np.float64))
    # (S1 S2)^(1/2) has the trace of (R S2 R)^(1/2), where R R = S1; that product is symmetric.
    values, vectors = np.linalg.eigh(np.atleast_2d(first))
    root = (vectors * np.sqrt(values.clip(0))) @ vectors.T
    shared = np.linalg.eigvalsh(root @ np.atleast_2d(second) @ root).clip(0)
    traces = np.trace(np.atleast_2d(first)) + np.trace(np.atleast_2d(second))
    return max(0.0, float(apart.sum() + traces - 2 * np.sqrt(shared).sum()))
