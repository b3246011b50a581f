"""End-to-end images/s of precompute over the images/s of its slowest stage, in one run.

Each stage is timed alone, on the same inputs and with the same batches: reading and decoding in
threads, the models, and writing with commit. End to end they overlap, so the ratio would be 1 if
the others cost nothing. Where decoding and models share the same processors it cannot be reached.
Rounds alternate between the stages and the best of each counts, since machines are shared.
"""

import os
import time

import numpy as np
import pytest
import torch
from PIL import Image

from flows.config import num_cpus
from flows.models import ModelOptions, load_models
from flows.steps.avatars import write_avatars
from flows.steps.model_threads import ModelThreads
from flows.steps.precompute import PrecomputeConfig, open_store, precompute
from flows.steps.progress import Stopwatch
from flows.steps.reading import ImageReader, decode_ahead
from flows.steps.workplace import describe_models
from pipeline.encoding import encode_views
from pipeline.models.e4e import Encoder
from pipeline.models.stylegan2 import Generator
from stores.plan import plan_shards
from stores.sources import scan_images
from stores.writer import ShardWriter

pytestmark = [pytest.mark.bench, pytest.mark.timeout(1800)]

NUM_IMAGES = int(os.environ.get("BENCH_IMAGES", "4096"))
BATCH = 64
ROUNDS = 3
WANTED = 0.9
NUM_JPEGS = NUM_IMAGES // 16
NUM_PHOTOGRAPHS = NUM_IMAGES // 64
MODELS = ModelOptions(models="avatar")
VIT = "ViT-B-32-quickgelu"


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bench") / "faces"
    write_avatars(folder, count=NUM_IMAGES, seed=77, num_workers=num_cpus())
    return folder


class Stages:
    """Precompute, and its parts one by one."""

    def __init__(self, images, folder, models):
        self.images, self.folder, self.models_of = images, folder, models
        self.loaded = load_models(models)
        self.scan = scan_images([images])
        self.decoded, self.encoded = [], []
        self.round = 0

    def decode(self):
        read = ImageReader(
            encoders=self.loaded.encoders, columns=self.models_of.columns, watch=Stopwatch()
        )
        ahead = decode_ahead(self.scan.items, read, num_workers=num_cpus(), depth=2 * BATCH)
        self.decoded = [image.views for image in ahead]

    def models(self):
        threads = ModelThreads(self.loaded.encoders.device, BATCH)
        size = threads.batch_size
        parts = [self.decoded[i : i + size] for i in range(0, len(self.decoded), size)]
        self.encoded = [rows() for _, rows in threads.map(self._encode, enumerate(parts))]

    def _encode(self, views):
        return encode_views(views, self.loaded.encoders, self.models_of.columns)

    def write(self):
        config = self.config("alone")
        store = open_store(config, describe_models(config, self.loaded))
        parts = iter(self.encoded)
        for shard in plan_shards(self.scan, store, config.shard_rows).shards:
            writer = ShardWriter(store, shard)
            keys = [item.key for item in shard.items]
            while keys:
                rows = next(parts)
                size = len(next(iter(rows.values())))
                writer.add(keys[:size], rows)
                keys = keys[size:]
            writer.commit()

    def end_to_end(self):
        precompute(self.config("whole"))

    def config(self, name):
        return PrecomputeConfig(
            sources=(str(self.images),),
            store=self.folder / f"{name}-{self.round}",
            models=self.models_of,
            batch_size=BATCH,
        )

    def rates(self):
        """Images/s of each stage, alone and together."""
        self.round += 1
        stages = (self.decode, self.models, self.write, self.end_to_end)
        return {stage.__name__: len(self.scan.items) / timed(stage) for stage in stages}


def timed(stage):
    begin = time.perf_counter()
    stage()
    return time.perf_counter() - begin


def ratio_to_the_slowest(stages, title, table, rounds=ROUNDS):
    """End to end over the slowest stage, and over what the shared processors allow."""
    stages.rates()  # warms kernels and page cache up
    rounds = [stages.rates() for _ in range(rounds)]
    best = {name: max(rates[name] for rates in rounds) for name in rounds[0]}
    whole = best.pop("end_to_end")
    slowest = min(best, key=best.__getitem__)
    limit = 1 / sum(1 / rate for rate in best.values())
    for name, rate in {**best, "end to end": whole}.items():
        table.told(f"precompute, {title}, {name}", rate, unit="images/s")
    return whole / best[slowest], slowest, whole / limit


def compare(stages, title, table):
    """On processors decoding takes its time from the models: then their sum is the limit."""
    over_slowest, slowest, over_sum = ratio_to_the_slowest(stages, title, table)
    what = f"precompute end to end, {title}"
    table.told(what, over_slowest, against=f"its slowest stage alone: {slowest}")
    against = "the slowest stage, or all one after the other where they share processors"
    table.at_least(what, max(over_slowest, over_sum), WANTED, against=against)


def test_end_to_end_rate_is_that_of_the_slowest_stage(images, tmp_path, table):
    in_full(Stages(images, tmp_path, MODELS), "avatars", table, ROUNDS)


def in_full(stages, title, table, rounds):
    ratio, slowest, over_sum = ratio_to_the_slowest(stages, title, table, rounds)
    what = f"precompute end to end, {title}"
    table.told(what, over_sum, against="all stages one after the other")
    table.at_least(what, ratio, WANTED, against=f"its slowest stage alone: {slowest}")


def test_of_photographs_through_published_sizes(vit_b_32, tmp_path, table):
    """What users have: JPEGs of 1024 px through e4e and CLIP; the weights are random."""
    torch.manual_seed(0)
    encoder, generator = tmp_path / "e4e.pt", tmp_path / "stylegan2.pt"
    state = {f"encoder.{name}": value for name, value in Encoder().state_dict().items()}
    torch.save({"state_dict": state, "latent_avg": torch.zeros(18, 512), "opts": {}}, encoder)
    torch.save({"g_ema": Generator(1024).state_dict(), "latent_avg": torch.zeros(512)}, generator)
    models = ModelOptions(clip=vit_b_32.clip, encoder=encoder, generator=generator)
    folder = photographs(tmp_path / "jpegs", NUM_PHOTOGRAPHS, 1024)
    stages = Stages(folder, tmp_path, models)
    in_full(stages, "e4e and ViT-B/32, JPEGs of 1024 px", table, rounds=2)


@pytest.fixture(scope="module")
def vit_b_32(tmp_path_factory):
    """CLIP alone, with random weights."""
    import open_clip

    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "vit-b-32.pt"
    torch.save(open_clip.CLIP(**open_clip.get_model_config(VIT)).state_dict(), path)
    return ModelOptions(clip=f"{VIT}:{path}", columns=("clip",))


@pytest.mark.parametrize("side", [256, 1024])
def test_large_jpegs_cost_little_beside_vit_b_32(vit_b_32, tmp_path, side, table):
    folder = photographs(tmp_path / "jpegs", NUM_JPEGS, side)
    compare(Stages(folder, tmp_path, vit_b_32), f"ViT-B/32, JPEGs of {side} px", table)


def photographs(folder, count, side):
    folder.mkdir()
    for number in range(count):
        photograph(number, side).save(folder / f"{number:05}.jpg", quality=90)
    return folder


def photograph(seed, side):
    """Smooth noise that takes about as many bytes as a photograph."""
    random = np.random.default_rng(seed)
    small = random.integers(0, 256, (side // 16, side // 16, 3), dtype=np.uint8)
    smooth = np.asarray(Image.fromarray(small).resize((side, side), Image.Resampling.BICUBIC))
    grain = random.integers(-12, 13, (side, side, 1))
    return Image.fromarray((smooth + grain).clip(0, 255).astype(np.uint8))
