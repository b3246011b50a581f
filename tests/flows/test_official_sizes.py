"""Everything at published sizes: files in the published layouts, images in, an edited image out."""

import importlib.util
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pipeline.models.delta_mapper import DeltaMapper, DeltaMapperConfig
from pipeline.models.e4e import E4EConfig, Encoder
from pipeline.models.s_layout import layout_of_codes
from pipeline.models.stylegan2 import Generator
from pipeline.models.stylegan2_layers import fir_kernel
from stores.reader import StoreReader

RECIPE = Path(__file__).resolve().parents[2] / "../shared/golden/fill_recipe.py"
NUM_IMAGES = 6
TEXT = "face with smile"

USAGE = """
import resource
from multiprocessing.util import Finalize
def tell():
    used = resource.getrusage(resource.RUSAGE_SELF)
    os.write(2, f"peak {used.ru_maxrss} kB, {used.ru_utime + used.ru_stime:.0f} CPU s".encode())
Finalize(None, tell, exitpriority=0)
"""
MAX_PEAK_KB = 6_000_000

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def fill():
    """The golden recipe's value of a state-dict entry."""
    if not RECIPE.is_file():
        pytest.skip(f"{RECIPE} is not here")
    spec = importlib.util.spec_from_file_location("fill_recipe", RECIPE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.fill_value


def filled(fill, build, *arguments):
    """State dict of a network that is never built: weights by the recipe."""
    state = {}
    with torch.device("meta"):
        shapes = {k: tuple(v.shape) for k, v in build(*arguments).state_dict().items()}
    for key, shape in shapes.items():
        value = fill(key, shape)
        if value is not None:
            state[key] = torch.from_numpy(np.asarray(value))
        elif key.endswith("kernel"):
            state[key] = fir_kernel()
        else:
            state[key] = torch.zeros(shape, dtype=torch.long)
    return state


@pytest.fixture(scope="module")
def models(fill, tmp_path_factory):
    """The folder that a user has after downloading, at 1024 px and 267 million parameters."""
    import open_clip

    folder = tmp_path_factory.mktemp("models")
    latent_avg = torch.zeros(512)
    generator = filled(fill, Generator, 1024)
    torch.save(
        {"g_ema": generator, "latent_avg": latent_avg}, folder / "stylegan2-ffhq-config-f.pt"
    )
    encoder = filled(fill, Encoder, E4EConfig(num_w=18))
    checkpoint = {
        "state_dict": {f"encoder.{key}": value for key, value in encoder.items()},
        "latent_avg": latent_avg.expand(18, 512).clone(),
        "opts": {"encoder_type": "Encoder4Editing", "start_from_latent_avg": True},
    }
    torch.save(checkpoint, folder / "e4e_ffhq_encode.pt")
    del encoder, checkpoint, generator
    torch.manual_seed(0)
    clip = open_clip.CLIP(**open_clip.get_model_config("ViT-B-32"))
    torch.save(clip.state_dict(), folder / "ViT-B-32.pt")
    widths = layout_of_codes(6048).widths
    mapper = filled(fill, DeltaMapper, DeltaMapperConfig(widths=widths))
    torch.save(mapper, folder / "net_face.pth")
    rows = np.random.default_rng(31).standard_normal((6048, 512)).astype(np.float32)
    np.save(folder / "fs3.npy", rows / np.linalg.norm(rows, axis=1, keepdims=True))
    return folder


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    random = np.random.default_rng(0)
    for number in range(NUM_IMAGES):
        coarse = random.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((300, 300)).save(folder / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def at_work(models):
    """Python that a process runs first: where the models are; last it says what it took."""
    return f"os.environ['DELTAEDIT_MODELS'] = {str(models)!r}\n" + USAGE


@pytest.fixture(scope="module")
def store(call, photos, at_work, tmp_path_factory):
    store = tmp_path_factory.mktemp("store") / "ffhq.store"
    run = call(
        *("precompute", photos, store, "--models", "ffhq", "--clip-pre", "box7"),
        *("--split-eval", 0.4, "--json"),
        before=at_work,
    )
    assert json.loads(run.out)["rows"] == NUM_IMAGES
    check_usage("precompute", run)
    return store


def check_usage(name, run):
    """Every command fits a laptop; `pytest -s` shows the figures of docs/official-models.md."""
    usage = run.err.splitlines()[-1]
    print(f"\n{name}: {usage}")  # noqa: T201
    match = re.search(r"peak (\d+) kB", usage)
    assert match is not None
    assert int(match[1]) < MAX_PEAK_KB


def test_the_doctor_finds_the_files(call, at_work):
    run = call("doctor", "--models", "ffhq", "--json", before=at_work)
    found = {line["topic"]: line["level"] for line in json.loads(run.out)["findings"]}
    kinds = ("generator", "encoder", "mapper", "relevance")
    assert {found[f"model ffhq {kind}"] for kind in kinds} == {"ok"}
    assert found["model ViT-B-32 clip"] == "warning"  # not the published weights


def test_photographs_become_codes_of_published_shapes(store):
    reader = StoreReader(store)
    shapes = {column.name: column.shape for column in reader.schema.columns}
    assert shapes == {"clip": (512,), "w_plus": (18, 512), "s": (6048,)}
    s = reader.column("s")
    assert np.isfinite(s).all()
    assert np.abs(s[0] - s[1]).max() > 0.1


def test_a_mapper_is_trained_exported_and_edits_as_published(
    call, store, photos, models, at_work, tmp_path
):
    run, net = tmp_path / "run", tmp_path / "net.pth"
    options = ("--recipe", "official", "--steps", 3, "--batch-size", 8)
    check_usage("train", call("train", store, run, *options, before=USAGE))
    call("export", run, net)
    image = ("--image", photos / "0.png", "--text", TEXT)
    edit = ("edit", "--mapper", net, "--models", "ffhq", "--relevance", models / "fs3.npy", *image)
    loaded = call(*edit, "--out", tmp_path / "a.png", "--json", before=at_work)
    (line,) = json.loads(loaded.out)["edits"]
    assert 0 < line["channels"] <= 6048
    state, published = torch.load(net), torch.load(models / "net_face.pth")
    assert {k: v.shape for k, v in state.items()} == {k: v.shape for k, v in published.items()}
    again = ("edit", run, *image, "--relevance", models / "fs3.npy", "--out", tmp_path / "b.png")
    call(*again, before=at_work)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_published_files_alone_edit_a_photograph(call, photos, models, at_work, tmp_path):
    run = call(
        *("edit", "--mapper", models / "net_face.pth", "--relevance", models / "fs3.npy"),
        *("--models", "ffhq", "--image", photos / "1.png", "--text", TEXT, "--top-k", 500),
        *("--out", tmp_path / "edit.png", "--pictures", tmp_path / "full"),
        before=at_work,
    )
    check_usage("edit", run)
    before, after = (np.asarray(Image.open(p)) for p in sorted((tmp_path / "full").iterdir()))
    assert before.shape == after.shape == (1024, 1024, 3)
    assert (before != after).any()
