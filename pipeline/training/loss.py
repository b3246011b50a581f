"""Losses of the Delta Mapper, and how well held-out changes are predicted, group by group.

DeltaEdit (Lyu et al. 2023), equations 4 and 5.
"""

from collections.abc import Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.models.delta_mapper import DeltaMapperConfig
from pipeline.shapes import assert_shape

COSINE_EPS = 1e-8
"""The published clamp of the product of the two lengths."""
ALL_CHANNELS = "all"


class LossWeights(NamedTuple):
    """Weights of the two terms; both are 1 in the published run."""

    mse: float = 1.0
    cosine: float = 1.0


PUBLISHED_WEIGHTS = LossWeights()


class DeltaLoss(NamedTuple):
    """The loss and its terms, unweighted; scalars."""

    total: Tensor
    mse: Tensor
    cosine: Tensor


class GroupFit(NamedTuple):
    """How well one group of channels is predicted, averaged over pairs."""

    mse: float
    """Mean squared error over pairs and channels."""
    zero_mse: float
    """The same of the prediction "nothing changes"."""
    cosine: float
    """Mean cosine between predicted and true change; 0 for the zero predictor."""

    @property
    def explained(self) -> float:
        """Share of the zero predictor's error that is gone: 1 is perfect, 0 is useless."""
        return 1.0 - self.mse / self.zero_mse if self.zero_mse else 0.0


def mse_loss(prediction: Tensor, target: Tensor) -> Tensor:
    """Mean squared error over all elements: two [N, S] -> a scalar."""
    return F.mse_loss(prediction, target)


def cosine_loss(prediction: Tensor, target: Tensor) -> Tensor:
    """One minus the mean cosine of rows: two [N, S] -> a scalar."""
    return 1.0 - F.cosine_similarity(prediction, target, dim=1, eps=COSINE_EPS).mean()


def delta_loss(
    prediction: Tensor, target: Tensor, weights: LossWeights = PUBLISHED_WEIGHTS
) -> DeltaLoss:
    """Weighted sum of `mse_loss` and `cosine_loss`.

    Raises:
        ShapeError: the two differ in shape.
    """
    assert_shape(prediction, tuple(target.shape), "prediction")
    mse, cosine = mse_loss(prediction, target), cosine_loss(prediction, target)
    return DeltaLoss(weights.mse * mse + weights.cosine * cosine, mse, cosine)


def group_slices(config: DeltaMapperConfig) -> dict[str, slice]:
    """Where each group of channels lies in a flat code; `all` first."""
    slices = {ALL_CHANNELS: slice(0, config.s_dim)}
    start = 0
    for name, layers, width in config.groups:
        slices[name] = slice(start, start + layers * width)
        start += layers * width
    return slices


@torch.no_grad()
def fit_by_group(
    prediction: Tensor, target: Tensor, groups: Mapping[str, slice]
) -> dict[str, GroupFit]:
    """Compare predicted with true changes [N, S], for each group of channels.

    Raises:
        ShapeError: the two differ in shape.
    """
    assert_shape(prediction, tuple(target.shape), "prediction")
    fits: dict[str, GroupFit] = {}
    for name, channels in groups.items():
        found, wanted = prediction[:, channels], target[:, channels]
        fits[name] = GroupFit(
            mse=float(mse_loss(found, wanted)),
            zero_mse=float(wanted.square().mean()),
            cosine=1.0 - float(cosine_loss(found, wanted)),
        )
    return fits
