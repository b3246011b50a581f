"""CLIP's weights: from a local file into the towers of an open_clip model."""

import hashlib
from pathlib import Path

import torch
from torch import Tensor, nn

from pipeline.errors import WeightsError
from pipeline.models.weights_file import is_torchscript, read_weights

NOT_WEIGHTS = ("input_resolution", "context_length", "vocab_size", "attn_mask")
"""Entries of TorchScript archives that follow from the model's config."""

MAX_NAMED = 3


def read_clip_state(path: Path) -> tuple[dict[str, Tensor], str]:
    """State dict of a CLIP file in float32, and the file's SHA-256.

    Raises:
        WeightsError: damaged, truncated or unsafe to read.
    """
    if is_torchscript(path):
        state, sha256 = _read_torchscript(path)
    else:
        file = read_weights(path)
        state, sha256 = file.state.get("state_dict", file.state), file.sha256
    state = {key.removeprefix("module."): value for key, value in state.items()}
    for key in NOT_WEIGHTS:
        state.pop(key, None)
    return {
        key: value.float() if value.is_floating_point() else value for key, value in state.items()
    }, sha256


def _read_torchscript(path: Path) -> tuple[dict[str, Tensor], str]:
    """TorchScript's own loader makes no Python objects, and the archive's code is never run."""
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    try:
        script = torch.jit.load(str(path), map_location="cpu")
    except RuntimeError as error:
        raise WeightsError(f"{path} is a damaged TorchScript archive; fetch it again") from error
    return dict(script.state_dict()), sha256


def fill_towers(towers: nn.Module, state: dict[str, Tensor], name: str, path: Path) -> None:
    """Load `state` into a model of open_clip, all of it or nothing.

    Raises:
        WeightsError: names the first entries that are missing, unknown or of another shape.
    """
    from open_clip.model import convert_to_custom_text_state_dict

    if not hasattr(towers, "positional_embedding"):
        state = convert_to_custom_text_state_dict(state)
    want = {key: tuple(value.shape) for key, value in towers.state_dict().items()}
    have = {key: tuple(value.shape) for key, value in state.items()}
    wrong = sorted(key for key in want.keys() | have.keys() if want.get(key) != have.get(key))
    if wrong:
        shown = "; ".join(
            f"{key}: expected {want.get(key, 'nothing')}, found {have.get(key, 'nothing')}"
            for key in wrong[:MAX_NAMED]
        )
        raise WeightsError(
            f"{path} does not fit {name}: {len(wrong)} of {len(want)} entries differ ({shown}); "
            "give the name of the model that these weights belong to"
        )
    towers.load_state_dict(state)
