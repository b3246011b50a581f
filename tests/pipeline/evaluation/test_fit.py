import numpy as np
import pytest
import torch

from pipeline.evaluation.fit import s_space_fit
from pipeline.models.delta_mapper import DeltaMapper, DeltaMapperConfig
from pipeline.training.checkpoint import TrainedMapper

WIDTHS = (4,) * 9


class ArrayRows:
    def __init__(self, clip, s):
        self.columns = {"clip": clip, "s": s}

    def __len__(self):
        return len(self.columns["s"])

    def rows(self, indices, columns):
        return {name: self.columns[name][indices] for name in columns}


@pytest.fixture
def rows():
    generator = np.random.default_rng(0)
    s = generator.standard_normal((50, 36)) * np.geomspace(0.1, 10, 36)
    return ArrayRows(generator.standard_normal((50, 6)).astype(np.float32), s.astype(np.float32))


def test_a_mapper_that_predicts_nothing_is_the_zero_predictor(rows):
    mapper = DeltaMapper(DeltaMapperConfig(widths=WIDTHS, clip_dim=6)).eval()
    for parameter in mapper.parameters():
        parameter.detach().zero_()
    s = torch.from_numpy(rows.columns["s"])
    trained = TrainedMapper(
        mapper=mapper,
        s_centre=s.mean(0),
        s_std=s.std(0, correction=0),
        z_score=True,
        step=0,
    )
    fit = s_space_fit(trained, rows, np.arange(50), num_pairs=4000)
    assert set(fit.raw) == {"all", "coarse", "medium", "fine"}
    for space in (fit.raw, fit.scaled):
        assert all(group.explained == 0 for group in space.values())
    # Two independent rows differ by twice the variance.
    assert fit.scaled["all"].zero_mse == pytest.approx(2 * 50 / 49, rel=0.05)
