import hashlib
import io
import os
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save

from pipeline.errors import WeightsError
from pipeline.models.weights_file import read_weights

STATE = {"a": torch.arange(6000.0).view(60, 100).half(), "b": {"c": torch.ones(2).double(), "n": 3}}


class TouchesFile:
    """What a malicious pickle does: run a function while it is read."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def saved(value, **options):
    buffer = io.BytesIO()
    torch.save(value, buffer, **options)
    return buffer.getvalue()


def write(folder, data, name="weights.pt"):
    path = folder / name
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("zipped", [True, False])
def test_pytorch_files_of_both_formats_come_as_float32_with_their_digest(tmp_path, zipped):
    data = saved(STATE, _use_new_zipfile_serialization=zipped)
    file = read_weights(write(tmp_path, data))
    assert torch.equal(file.state["a"], STATE["a"].float())
    assert file.state["b"]["c"].dtype == torch.float32
    assert file.state["b"]["n"] == 3
    assert file.sha256 == hashlib.sha256(data).hexdigest()


def test_safetensors_come_with_their_metadata_whatever_the_name(tmp_path):
    data = save({"a": torch.ones(3, dtype=torch.bfloat16)}, metadata={"input_height": "64"})
    file = read_weights(write(tmp_path, data, "weights.bin"))
    assert torch.equal(file.state["a"], torch.ones(3))
    assert file.info.metadata == {"input_height": "64"}


def test_safetensors_of_any_header_length_are_read(tmp_path):
    first_bytes = set()
    for padding in range(0, 512, 4):
        path = tmp_path / "weights.safetensors"
        path.write_bytes(save({"weight": torch.ones(2)}, {"note": "x" * padding}))
        first_bytes.add(path.read_bytes()[:1])
        assert read_weights(path).metadata["note"] == "x" * padding
    assert b"\x80" in first_bytes  # what a pickle begins with


def test_a_wrong_digest_is_refused_naming_both(tmp_path):
    path = write(tmp_path, saved(STATE))
    found = read_weights(path).sha256
    assert read_weights(path, sha256=found.upper()).sha256 == found
    with pytest.raises(WeightsError, match=f"SHA-256 is {found}, expected {'0' * 64}"):
        read_weights(path, sha256="0" * 64)


@pytest.mark.parametrize("zipped", [True, False])
def test_code_in_a_pickle_is_refused_and_does_not_run(tmp_path, zipped):
    mark = tmp_path / "ran"
    data = saved({"a": TouchesFile(mark)}, _use_new_zipfile_serialization=zipped)
    with pytest.raises(WeightsError, match="holds Python objects"):
        read_weights(write(tmp_path, data))
    with pytest.raises(WeightsError, match="a Python pickle"):
        read_weights(write(tmp_path, pickle.dumps(TouchesFile(mark)), "network.pkl"))
    assert not mark.exists()


def test_a_whole_pickled_module_is_refused(tmp_path):
    path = write(tmp_path, saved(torch.nn.Linear(2, 2)))
    with pytest.raises(WeightsError, match=r"torch\.nn\.modules\.linear\.Linear"):
        read_weights(path)


def test_an_nvidia_pickle_is_refused_with_the_way_to_convert_it(tmp_path):
    head = pickle.dumps("dnnlib.tflib.network") + b"Network"
    with pytest.raises(WeightsError, match=r"NVIDIA \.pkl.*docs/official-models\.md"):
        read_weights(write(tmp_path, head, "stylegan2-ffhq-config-f.pkl"))


@pytest.mark.parametrize("share", [0.01, 0.3, 0.99])
@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors"])
def test_truncated_files_are_refused_as_damaged(tmp_path, kind, share):
    state = {"a": torch.randn(100, 100)}
    data = {
        "zip": lambda: saved(state),
        "legacy": lambda: saved(state, _use_new_zipfile_serialization=False),
        "safetensors": lambda: save(state),
    }[kind]()
    with pytest.raises(WeightsError, match=r"damaged|truncated"):
        read_weights(write(tmp_path, data[: int(len(data) * share)]))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "empty"),
        (b"<!DOCTYPE html><title>Google Drive</title>", "web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "git lfs pull"),
        (b"hello, these are no weights", "not a weights file"),
        (saved([1, 2]), "expected a dict of tensors"),
    ],
)
def test_other_files_are_refused_by_what_they_are(tmp_path, data, message):
    with pytest.raises(WeightsError, match=message):
        read_weights(write(tmp_path, data))


def test_random_bytes_are_refused(tmp_path):
    with pytest.raises(WeightsError, match=r"weights\.pt"):
        read_weights(write(tmp_path, b"\x00" + os.urandom(5000)))


def test_a_torchscript_archive_is_refused_as_one(tmp_path):
    path = tmp_path / "script.pt"
    with torch.no_grad():
        torch.jit.trace(torch.nn.Linear(2, 2), torch.zeros(1, 2)).save(str(path))
    with pytest.raises(WeightsError, match="TorchScript"):
        read_weights(path)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(WeightsError, match="no such file"):
        read_weights(tmp_path / "absent.pt")
