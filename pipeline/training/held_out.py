"""Fixed pairs of held-out rows, and how well a mapper predicts their changes."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from pipeline.models.delta_mapper import DeltaMapperConfig
from pipeline.pairs.sampling import PairConfig
from pipeline.shapes import Ints
from pipeline.training.checkpoint import TrainedMapper
from pipeline.training.data import PairBatches
from pipeline.training.gather import Condition
from pipeline.training.loss import GroupFit, fit_by_group, group_slices
from pipeline.training.rows import RowSource, load_rows

BATCH_PAIRS = 256


@dataclass(frozen=True, kw_only=True, slots=True)
class SSpaceFit:
    """Fit of all channels and of each group, keyed `all`, `coarse`, `medium`, `fine`."""

    raw: dict[str, GroupFit]
    """In codes as they are: channels of large variance dominate."""
    scaled: dict[str, GroupFit]
    """In codes divided by the training rows' std: channels count alike."""


@dataclass(frozen=True, kw_only=True, slots=True)
class HeldOut:
    """Pairs of rows that the mapper has not seen, in raw codes."""

    s: Tensor
    """[P, S] float32."""
    condition: Tensor
    """[P, 2C] float32."""
    delta_s: Tensor
    """[P, S] float32."""
    groups: Mapping[str, slice]
    """Channels of each group."""

    @classmethod
    def draw(
        cls,
        rows: RowSource,
        numbers: Ints,
        mapper: DeltaMapperConfig,
        *,
        num_pairs: int,
        pairs: PairConfig,
        condition: Condition = "delta",
        device: torch.device | str = "cpu",
    ) -> Self:
        """Draw `num_pairs` pairs among the rows `numbers`.

        Raises:
            PairError: the rows give no such pairs.
            ShapeError: the store's columns do not fit the mapper.
        """
        block = load_rows(rows, numbers, s_dim=mapper.s_dim)
        batch = PairBatches(block, pairs, batch_size=num_pairs, condition=condition).batch(0)
        return cls(
            s=batch.s.to(device),
            condition=batch.condition.to(device),
            delta_s=batch.delta_s.to(device),
            groups=group_slices(mapper),
        )

    def fit(self, trained: TrainedMapper) -> SSpaceFit:
        """Compare predicted with true changes."""
        blocks = zip(self.s.split(BATCH_PAIRS), self.condition.split(BATCH_PAIRS), strict=True)
        prediction = torch.cat([trained.predict(s, condition) for s, condition in blocks])
        scale = torch.where(trained.s_std > 0, 1.0 / trained.s_std, 0.0)
        return SSpaceFit(
            raw=fit_by_group(prediction, self.delta_s, self.groups),
            scaled=fit_by_group(prediction * scale, self.delta_s * scale, self.groups),
        )
