"""Files that are not the models they should be: refused on the command line, nothing written."""

import pickle
from pathlib import Path

import pytest
import torch

from pipeline.models.delta_mapper import DeltaMapper, DeltaMapperConfig
from pipeline.models.registry import BUNDLED_FOLDER
from pipeline.models.stylegan2 import Generator
from pipeline.models.weights import load_generator, mapper_state

GENERATOR = BUNDLED_FOLDER / "generator.safetensors"
RAN = "ran"


class TouchesFile:
    """What a malicious pickle does: run a function while it is read."""

    def __reduce__(self):
        return Path.touch, (Path(RAN),)


def state():
    return load_generator(GENERATOR)[0].state_dict()


def small_mapper():
    return mapper_state(DeltaMapper(DeltaMapperConfig(widths=(8,) * 7, clip_dim=4)))


def truncated(path):
    torch.save({"g_ema": state()}, path)
    path.write_bytes(path.read_bytes()[:-1000])


def without_a_layer(path):
    kept = state()
    del kept["convs.2.conv.weight"]
    torch.save({"g_ema": kept}, path)


def of_another_size(path):
    torch.save({"g_ema": Generator(32, (8,) * 4).state_dict()}, path)


def nvidia_pickle(path):
    path.write_bytes(pickle.dumps("dnnlib.tflib.network") + b"Network")


BAD = {
    "another architecture": (
        lambda path: torch.save(small_mapper(), path),
        "expected a StyleGAN2 generator (key conv1.conv.modulation.weight",
    ),
    "truncated": (truncated, "damaged, truncated or not a weights file"),
    "code": (lambda path: torch.save({"g_ema": TouchesFile()}, path), "holds Python objects"),
    "missing keys": (without_a_layer, "a StyleGAN2 generator of 64 px lacks convs.2.conv.weight"),
    "another size": (of_another_size, "gives 10 codes of 512, the generator of 32 px takes 8"),
    "NVIDIA": (nvidia_pickle, "an NVIDIA .pkl, which can only be read by running the code in it"),
}


@pytest.mark.parametrize("name", BAD)
def test_precompute_refuses_a_generator_that_is_none(name, call, faces, tmp_path):
    make, message = BAD[name]
    make(tmp_path / "generator.pt")
    run = call(
        *("precompute", faces, "faces.store", "--models", "avatar", "--generator", "generator.pt"),
        folder=tmp_path,
        code=2,
    )
    assert message in run.err
    assert [path.name for path in tmp_path.iterdir()] == ["generator.pt"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"sm_coarse.mapping.1.weight": TouchesFile()}, "holds Python objects"),
        ({"course_mapping.mapping.1.weight": torch.zeros(2)}, "found a StyleCLIP mapper"),
        (small_mapper(), "takes CLIP embeddings of 4, avatar-clip gives"),
    ],
    ids=["code", "another architecture", "another width"],
)
def test_edit_refuses_a_mapper_that_is_none(content, message, call, faces, tmp_path):
    torch.save(content, tmp_path / "net.pth")
    run = call(
        *("edit", "--mapper", "net.pth", "--models", "avatar", "--text", "face with a hat"),
        *("--image", faces / "avatar-000003.png", "--out", "edit.png"),
        folder=tmp_path,
        code=2,
    )
    assert message in run.err
    assert [path.name for path in tmp_path.iterdir()] == ["net.pth"]
