"""How well a trained mapper predicts the style changes between images it has not seen."""

from pipeline.pairs.sampling import PairConfig
from pipeline.shapes import Ints
from pipeline.training.checkpoint import TrainedMapper
from pipeline.training.held_out import HeldOut, SSpaceFit
from pipeline.training.rows import RowSource


def s_space_fit(
    trained: TrainedMapper,
    rows: RowSource,
    numbers: Ints,
    *,
    num_pairs: int = 2048,
    pairs: PairConfig | None = None,
) -> SSpaceFit:
    """Compare predicted with true changes over pairs of the rows `numbers`.

    Args:
        trained: any trained mapper.
        rows: a store with columns `clip` and `s`.
        numbers: held-out row numbers.
        num_pairs: pairs to average over.
        pairs: how they are drawn; random by default.

    Raises:
        PairError: the rows give no such pairs.
        ShapeError: the store's columns do not fit the mapper.
    """
    held_out = HeldOut.draw(
        rows,
        numbers,
        trained.config,
        num_pairs=num_pairs,
        pairs=pairs or PairConfig(),
        condition=trained.condition,
        device=trained.s_centre.device,
    )
    return held_out.fit(trained)
