"""Pairs per second against the published loader, and a training step against the bare model's.

The two sides of each ratio take turns in one run. The step is compared in CPU seconds of one
thread, which other work on the machine hardly changes; pairs per second are by the clock. Run:
``pytest -m bench tests/bench/bench_training.py -s``.
"""

import random
import time
from itertools import cycle, islice

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from pipeline.models import layers
from pipeline.models.delta_mapper import DeltaMapperConfig
from pipeline.pairs.sampling import PairConfig
from pipeline.training.config import TrainConfig, resolve
from pipeline.training.data import PairBatches
from pipeline.training.loss import LossWeights
from pipeline.training.rows import RowBlock
from pipeline.training.state import TrainingState

WIDTHS_1024 = (512,) * 10 + (256, 256, 128, 128, 64, 64, 32)
WIDTHS_DEMO = (96,) * 8 + (32,)
MIN_LOADER_RATIO = 4.0
MAX_STEP_RATIO = 1.05
BYTES_PER_NUMBER = 4


class PublishedPairs(Dataset):
    """The published data set: one pair per item, the partner from Python's `random`."""

    def __init__(self, clip, s):
        self.clip, self.s = torch.tensor(clip), torch.tensor(s)

    def __len__(self):
        return 50 * len(self.s)

    def __getitem__(self, index):
        index %= len(self.s)
        partner = random.randint(0, len(self.s) - 1)  # noqa: S311 - as published
        first = self.clip[index] / self.clip[index].norm()
        second = self.clip[partner] / self.clip[partner].norm()
        difference = second - first
        direction = difference / difference.norm().clamp(min=1e-5)
        return self.s[index], torch.cat([first, direction]), self.s[partner] - self.s[index]


def make_block(num_rows, widths, clip_dim):
    generator = np.random.default_rng(0)
    s = generator.standard_normal((num_rows, sum(widths)), dtype=np.float32)
    clip = generator.standard_normal((num_rows, clip_dim), dtype=np.float32)
    return RowBlock(clip / np.linalg.norm(clip, axis=1, keepdims=True), s)


def seconds_of(work, repeats, clock=time.perf_counter):
    start = clock()
    for number in range(repeats):
        work(number)
    return (clock() - start) / repeats


@pytest.mark.bench
@pytest.mark.timeout(900)
@pytest.mark.filterwarnings("ignore:This DataLoader will create 4 worker")
@pytest.mark.parametrize("batch_size", [64, 256])
def test_pairs_per_second_against_the_published_loader(batch_size, table):
    torch.set_num_threads(1)
    block = make_block(10_000, WIDTHS_1024, 512)
    batches = PairBatches(block, PairConfig(), batch_size=batch_size)
    loader = DataLoader(
        PublishedPairs(block.units, block.s),
        batch_size=64,
        shuffle=True,
        drop_last=True,
        num_workers=4,
    )
    theirs, ours, copied = [], [], []
    stream = iter(cycle(loader))
    list(islice(stream, 16))  # The workers' start is not what is compared.
    target = np.empty_like(block.s)
    for turn in range(5):
        theirs.append(64 / seconds_of(lambda _: next(stream), 40))
        first = turn * 100
        ours.append(batch_size / seconds_of(lambda n, f=first: batches.batch(f + n), 100))
        copied.append(2 * block.s.nbytes / seconds_of(lambda _: np.copyto(target, block.s), 2))
    # Read two rows of S, write both; read the difference's operands and write it.
    moved = np.median(ours) * 7 * BYTES_PER_NUMBER * sum(WIDTHS_1024)
    ratio = np.median(ours) / np.median(theirs)
    what = f"pairs/s, S of {sum(WIDTHS_1024):,}, batches of {batch_size}"
    peer = f"published loader, 4 workers, at {np.median(theirs):,.0f}"
    table.at_least(what, ratio, MIN_LOADER_RATIO, against=peer)
    table.told(what, moved / np.median(copied), against="bandwidth of a plain copy, one thread")


@pytest.mark.bench
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("recipe", "widths", "clip_dim", "turns"),
    [("fast", WIDTHS_DEMO, 256, 200), ("official", WIDTHS_1024, 512, 20)],
)
def test_step_time_against_the_bare_model(recipe, widths, clip_dim, turns, table):
    torch.set_num_threads(1)
    resolved = resolve(TrainConfig(recipe=recipe, steps=100_000), 6000)
    batches = PairBatches(
        make_block(6000, widths, clip_dim), PairConfig(), batch_size=resolved.batch_size
    )
    config = DeltaMapperConfig(widths=widths, clip_dim=clip_dim)
    state = TrainingState(config, resolved, LossWeights(), seed=0)
    bare = TrainingState(config, resolved, LossWeights(), seed=0)
    fixed = PairBatches(
        make_block(6000, widths, clip_dim), PairConfig(), batch_size=resolved.batch_size
    ).batch(0)
    adam = torch.optim.Adam(bare.live.parameters(), lr=0.5, fused=True)

    def bare_step(_):
        adam.zero_grad(set_to_none=True)
        prediction = bare.live(fixed.s, fixed.condition)
        cosine = torch.nn.functional.cosine_similarity(prediction, fixed.delta_s).mean()
        loss = torch.nn.functional.mse_loss(prediction, fixed.delta_s) + 1 - cosine
        loss.backward()
        adam.step()

    def published_step(_):
        # The products of torch's `linear`, whatever this project takes instead.
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(layers, "linear", torch.nn.functional.linear)
            bare_step(_)

    def whole_step(_):
        state.update(batches.batch(state.step))

    steps = {"whole": whole_step, "bare": bare_step, "published": published_step}
    for step in steps.values():
        seconds_of(step, 3)
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(turns):
        # Whichever comes second finds the other's weights in the cache.
        for name, step in list(steps.items())[:: 1 if turn % 2 else -1]:
            seconds[name].append(seconds_of(step, 2, time.process_time))
    whole, bare_s, published = (float(np.median(side)) for side in seconds.values())
    what = f"training step, {recipe}, S of {sum(widths):,}"
    against = f"the bare model's, {1e3 * bare_s:.1f} ms of one core"
    table.at_most(what, whole / bare_s, MAX_STEP_RATIO, against=against)
    against = f"the bare model's with torch's products, {1e3 * published:.1f} ms"
    table.told(what, whole / published, against=against)
