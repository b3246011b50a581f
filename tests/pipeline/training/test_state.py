import re
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.models.delta_mapper import DeltaMapperConfig
from pipeline.training.config import TrainConfig, resolve
from pipeline.training.gather import PairBatch
from pipeline.training.loss import LossWeights
from pipeline.training.state import TrainingState

GOLDEN = Path(__file__).resolve().parents[3] / "../shared/golden/delta_mapper.npz"
WIDTHS_1024 = (512,) * 10 + (256, 256, 128, 128, 64, 64, 32)


def filled(key, shape):
    """Recipe of the golden weights: equalised linears with learning-rate multiplier 0.01."""
    assert re.search(r"\.mapping\.\d+\.(weight|bias)$", key)
    scale = np.float32(100 if key.endswith("weight") else 20)
    normal = np.random.RandomState(zlib.crc32(key.encode())).standard_normal(shape)
    return torch.from_numpy(normal.astype(np.float32) * scale)


@pytest.mark.slow
@pytest.mark.skipif(not GOLDEN.exists(), reason="../shared/golden is not on this machine")
def test_official_updates_follow_the_published_loss_trace():
    with np.load(GOLDEN) as file:
        golden = dict(file)
    config = DeltaMapperConfig(widths=WIDTHS_1024)
    recipe = resolve(TrainConfig(recipe="official"), 258_000)
    state = TrainingState(config, recipe, LossWeights(), seed=0)
    shapes = {key: value.shape for key, value in state.live.state_dict().items()}
    state.live.load_state_dict({key: filled(key, shape) for key, shape in shapes.items()})
    batch = PairBatch(*(torch.from_numpy(golden[name]) for name in ("s", "clip", "target")))
    for mse, cosine, total in golden["loss_trace"]:
        loss = state.update(batch)
        found = [term.item() for term in (loss.mse, loss.cosine, loss.total)]
        assert found == pytest.approx([mse, cosine, total], rel=1e-4)


def test_initial_weights_depend_on_the_seed_and_leave_the_global_generator_alone():
    def weights(seed):
        recipe = resolve(TrainConfig(), 100)
        config = DeltaMapperConfig(widths=(4,) * 9, clip_dim=6)
        return TrainingState(config, recipe, LossWeights(), seed=seed).weights()

    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    first, again, other = weights(0), weights(0), weights(1)
    assert torch.equal(torch.rand(1), expected)
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert any(not torch.equal(first[key], other[key]) for key in first)


@pytest.mark.gpu
@pytest.mark.parametrize("recipe", ["official", "fast"])
def test_updates_on_a_gpu_follow_those_of_the_processor(recipe):
    config = DeltaMapperConfig(widths=(32,) * 9, clip_dim=16)
    resolved = resolve(TrainConfig(recipe=recipe, steps=100), 6000)
    generator = np.random.default_rng(0)
    batches = [
        [generator.standard_normal((64, n), dtype=np.float32) for n in (288, 32, 288)]
        for _ in range(20)
    ]
    losses = []
    for device in ("cpu", "cuda"):
        state = TrainingState(config, resolved, LossWeights(), seed=0, device=device)
        tensors = (PairBatch(*(torch.from_numpy(a).to(device) for a in b)) for b in batches)
        losses.append([state.update(batch).total.item() for batch in tensors])
    assert losses[1][0] == pytest.approx(losses[0][0], rel=1e-4)
    assert losses[1] == pytest.approx(losses[0], rel=0.02)
