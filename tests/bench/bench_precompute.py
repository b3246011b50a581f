"""End-to-end images/s of precompute over the images/s of its slowest stage, in one run.

Each stage is timed alone, on the same inputs and with the same batches: reading and decoding in
threads, the models, and writing with commit. End to end they overlap, so the ratio would be 1 if
the others cost nothing. Where decoding and models share the same processors it cannot be reached.
"""

import os
import time

import pytest

from flows.config import num_cpus
from flows.models import ModelOptions, load_models
from flows.steps.avatars import write_avatars
from flows.steps.precompute import PrecomputeConfig, open_store, precompute
from flows.steps.reading import decode_ahead
from pipeline.encoding import encode_images
from stores.plan import plan_shards
from stores.sources import scan_images
from stores.writer import ShardWriter

pytestmark = pytest.mark.bench

NUM_IMAGES = int(os.environ.get("BENCH_IMAGES", "2048"))
BATCH = 64
SHARD_ROWS = 512
WANTED = 0.9


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bench") / "faces"
    write_avatars(folder, count=NUM_IMAGES, seed=77, num_workers=num_cpus())
    return folder


def timed(stage):
    begin = time.perf_counter()
    stage()
    return time.perf_counter() - begin


def batches(rows):
    return (slice(begin, begin + BATCH) for begin in range(0, len(rows), BATCH))


def test_end_to_end_rate_is_that_of_the_slowest_stage(images, tmp_path):
    models = ModelOptions(models="avatar")
    loaded = load_models(models)
    columns = models.columns
    scan = scan_images([images])
    decoded, encoded = [], []

    def decode():
        ahead = decode_ahead(scan.items, num_workers=num_cpus(), depth=2 * BATCH)
        decoded.extend(image.pixels for image in ahead)

    def encode():
        for b in batches(decoded):
            encoded.append(encode_images(decoded[b], loaded.encoders, columns))  # noqa: PERF401 - a comprehension would time the list too

    def write():
        settings = PrecomputeConfig(sources=(str(images),), store=tmp_path / "alone", models=models)
        store = open_store(settings, loaded)
        parts = iter(encoded)
        for shard in plan_shards(scan, store, SHARD_ROWS).shards:
            writer = ShardWriter(store, shard)
            keys = [item.key for item in shard.items]
            for b in batches(keys):
                writer.add(keys[b], next(parts))
            writer.commit()

    def end_to_end():
        precompute(
            PrecomputeConfig(
                sources=(str(images),),
                store=tmp_path / "whole",
                models=models,
                batch_size=BATCH,
                shard_rows=SHARD_ROWS,
            )
        )

    encode_images([scan_pixels(scan)] * BATCH, loaded.encoders, columns)  # warms the kernels up
    rates = {
        stage.__name__: len(scan.items) / timed(stage)
        for stage in (decode, encode, write, end_to_end)
    }
    whole = rates.pop("end_to_end")
    slowest = min(rates, key=rates.__getitem__)
    ratio = whole / rates[slowest]
    stages = ", ".join(f"{name} {rate:,.0f}" for name, rate in rates.items())
    print(f"\nimages/s: {stages}; end to end {whole:,.0f}; over {slowest}: {ratio:.2f}")  # noqa: T201
    assert ratio >= WANTED


def scan_pixels(scan):
    return next(iter(decode_ahead(scan.items[:1], num_workers=1, depth=1))).pixels
