"""Precompute against `clip-retrieval inference`: the same CLIP, the same JPEGs, the clip column.

clip-retrieval goes into an environment of its own, made by this test in ``BENCH_PEERS`` (a folder;
default: one for this machine's temporary files, kept for the next run), because it needs old
packages. ViT-B/32 has random weights: no file is fetched but packages. Every program is run on few
and on more images, in turns; the rate is that of the images between, so that neither start-up nor
the peer's warm-up (a batch of 256) counts. Peak memory is that of the process tree, as the sum of
resident sets (RSS) and with shared pages counted once (PSS).
"""

import dataclasses
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from PIL import Image

from stores.reader import StoreReader

pytestmark = [pytest.mark.bench, pytest.mark.timeout(7200)]

NUM_IMAGES = int(os.environ.get("BENCH_IMAGES", "640"))
FEW = NUM_IMAGES // 4
SIDE = 1024
ROUNDS = int(os.environ.get("BENCH_ROUNDS", "2"))
PEERS = Path(os.environ.get("BENCH_PEERS", Path(tempfile.gettempdir()) / "deltaedit-bench-peers"))
PACKAGES = ("clip-retrieval==2.45.0", "setuptools<70")
MODEL = "ViT-B-32-quickgelu"
WANTED = {"float32": 1.3, "bfloat16": 2.5}
WANTED_MEMORY = 0.5
WANTED_COSINE = 0.9999
LOOK_EVERY_S = 0.5
"""Counting shared pages takes processors from the program that is measured."""


@dataclasses.dataclass
class Cost:
    """What one program took."""

    seconds: float
    cpu_seconds: float
    rss_mb: float
    pss_mb: float


@pytest.fixture(scope="module")
def clip_retrieval():
    """The program, installed once."""
    program = PEERS / "clip-retrieval" / "bin" / "clip-retrieval"
    if program.is_file():
        return program
    uv = shutil.which("uv") or Path(sys.executable).with_name("uv")
    folder = program.parents[1]
    steps = [
        [uv, "venv", "--quiet", folder],
        [uv, "pip", "install", "--quiet", "--python", folder / "bin" / "python", *PACKAGES],
    ]
    for step in steps:
        made = subprocess.run(step, capture_output=True, text=True, check=False)
        if made.returncode:
            shutil.rmtree(folder, ignore_errors=True)
            pytest.skip(f"clip-retrieval cannot be installed: {made.stderr.strip()[-200:]}")
    return program


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Two folders of smooth noise as JPEG, about as large as photographs of that size."""
    folder = tmp_path_factory.mktemp("jpegs")
    for number in range(NUM_IMAGES):
        name = f"{number:05}.jpg"
        for part in ["all", "few"] if number < FEW else ["all"]:
            (folder / part).mkdir(exist_ok=True)
            photograph(number, SIDE).save(folder / part / name, quality=90)
    return folder


def photograph(seed, side):
    random = np.random.default_rng(seed)
    small = random.integers(0, 256, (side // 16, side // 16, 3), dtype=np.uint8)
    smooth = np.asarray(Image.fromarray(small).resize((side, side), Image.Resampling.BICUBIC))
    grain = random.integers(-12, 13, (side, side, 1))
    return Image.fromarray((smooth + grain).clip(0, 255).astype(np.uint8))


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    import open_clip

    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "vit-b-32.pt"
    torch.save(open_clip.CLIP(**open_clip.get_model_config(MODEL)).state_dict(), path)
    return path


def measured(arguments, **environment):
    """Run a program to its end and watch its processes."""
    begin = time.perf_counter()
    settings = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | environment
    with tempfile.TemporaryFile() as log:
        process = psutil.Popen(list(map(str, arguments)), stdout=log, stderr=log, env=settings)
        rss, pss, cpu = 0, 0, {}
        while process.poll() is None:
            now_rss = now_pss = 0
            for one in family(process):
                try:
                    memory, times = one.memory_full_info(), one.cpu_times()
                except psutil.Error:
                    continue  # it ended in between
                now_rss, now_pss = now_rss + memory.rss, now_pss + memory.pss
                cpu[one.pid] = times.user + times.system
            rss, pss = max(rss, now_rss), max(pss, now_pss)
            time.sleep(LOOK_EVERY_S)
        log.seek(0)
        assert process.returncode == 0, log.read().decode(errors="replace")[-3000:]
    return Cost(time.perf_counter() - begin, sum(cpu.values()), rss / 1e6, pss / 1e6)


def family(process):
    try:
        return [process, *process.children(recursive=True)]
    except psutil.Error:
        return []


class Contest:
    """The programs on the same images; each run writes to a new folder."""

    def __init__(self, program, images, weights, folder):
        self.program, self.images, self.weights = program, images, weights
        self.folder = folder
        self.runs = 0

    def out(self):
        self.runs += 1
        return self.folder / f"out-{self.runs}"

    def theirs(self, part):
        options = {
            "--input_dataset": self.images / part,
            "--output_folder": self.out(),
            "--clip_model": f"open_clip:{MODEL}/{self.weights}",
            "--enable_text": False,
            "--enable_metadata": False,
        }
        flat = [word for option in options.items() for word in option]
        return measured([self.program, "inference", *flat], HF_HUB_OFFLINE="1")

    def ours(self, part, precision):
        self.store = self.out()
        deltaedit = Path(sys.executable).with_name("deltaedit")
        options = {
            "--columns": "clip",
            "--clip": f"{MODEL}:{self.weights}",
            "--precision": precision,
        }
        flat = [word for option in options.items() for word in option]
        return measured(
            [deltaedit, "precompute", self.images / part, self.store, *flat],
            PYTHONPATH=str(Path(__file__).parents[2]),
        )


@dataclasses.dataclass
class Pair:
    """The cheapest of several runs on few and on all images: what disturbs only adds."""

    few: list[Cost]
    many: list[Cost]

    def added(self, name):
        """Images per second, wall or processor, of the images that only the longer run had."""
        many, few = (min(getattr(cost, name) for cost in costs) for costs in (self.many, self.few))
        return (NUM_IMAGES - FEW) / (many - few)

    def least(self, name):
        """Of the runs on all images."""
        return min(getattr(cost, name) for cost in self.many)


def test_precompute_is_faster_and_smaller_than_clip_retrieval(
    clip_retrieval, images, weights, tmp_path, table
):
    contest = Contest(clip_retrieval, images, weights, tmp_path)
    pairs, rows = {name: Pair([], []) for name in ("clip-retrieval", *WANTED)}, {}
    for _ in range(ROUNDS):
        for part in ("few", "many"):
            folder = "all" if part == "many" else part
            getattr(pairs["clip-retrieval"], part).append(contest.theirs(folder))
            for precision in WANTED:
                getattr(pairs[precision], part).append(contest.ours(folder, precision))
                rows[precision] = StoreReader(contest.store).column("clip")
    theirs = pairs["clip-retrieval"]
    for name, pair in pairs.items():
        table.told(
            f"ViT-B/32, {NUM_IMAGES} JPEGs of {SIDE} px, {name}",
            pair.added("seconds"),
            unit="images/s",
            against=f"{1000 / pair.added('cpu_seconds'):.0f} ms of processors an image, peak "
            f"{pair.least('pss_mb'):,.0f} MB, {NUM_IMAGES / pair.least('seconds'):.1f} images/s "
            "with start-up",
        )
    for precision, wanted in WANTED.items():
        ours = pairs[precision]
        what, against = f"precompute, ViT-B/32, {precision}", "clip-retrieval inference"
        speed = ours.added("seconds") / theirs.added("seconds")
        table.at_least(f"{what}, images/s", speed, wanted, against=against)
        memory = ours.least("pss_mb") / theirs.least("pss_mb")
        table.at_most(f"{what}, peak memory", memory, WANTED_MEMORY, against=against)
    lengths = [np.linalg.norm(column, axis=1) for column in rows.values()]
    cosines = (rows["float32"] * rows["bfloat16"]).sum(axis=1) / (lengths[0] * lengths[1])
    what = "cosine of bfloat16 embeddings, least"
    table.at_least(what, cosines.min(), WANTED_COSINE, against="float32")
