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
    """State dict of a CLIP file, and the file's SHA-256.

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
    return state, sha256


def _read_torchscript(path: Path) -> tuple[dict[str, Tensor], str]:
    """TorchScript's own loader makes no Python objects, and the archive's code is never run."""
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    try:
        script = torch.jit.load(str(path), map_location="cpu")
    except RuntimeError as error:
        raise WeightsError(f"{path} is a damaged TorchScript archive; fetch it again") from error
    return dict(script.state_dict()), sha256


class ImageTower(nn.Module):
    """A model of open_clip without its text tower: takes the place of both where only images are.

    Attributes:
        visual: open_clip's image tower.
    """

    def __init__(self, visual: nn.Module) -> None:
        super().__init__()
        self.visual = visual

    def encode_image(self, images: Tensor) -> Tensor:
        """[N, 3, size, size] -> [N, C], as the whole model does."""
        return self.visual(images)


def fill_towers(towers: nn.Module, state: dict[str, Tensor], name: str, path: Path) -> None:
    """Load `state` into a model of open_clip, all of it or nothing.

    Raises:
        WeightsError: names the first entries that are missing, unknown or of another shape.
    """
    towers.load_state_dict(_fitting(towers, state, name, path))


def image_tower(
    towers: nn.Module, state: dict[str, Tensor], name: str, path: Path
) -> ImageTower | None:
    """The image tower of a model on torch's meta device, with weights of its own in float32.

    The text tower never takes memory, and weights of a memory-mapped file none until they are used.

    Returns:
        None where the tower holds more than weights, so that it has to be made on a real device.

    Raises:
        WeightsError: as for `fill_towers`; the text tower's entries must fit too.
    """
    prefix = "visual."
    weights = {
        key.removeprefix(prefix): value.float() if value.is_floating_point() else value
        for key, value in _fitting(towers, state, name, path).items()
        if key.startswith(prefix)
    }
    visual = towers.get_submodule("visual")
    visual.load_state_dict(weights, assign=True)
    has_rest = any(tensor.is_meta for tensor in (*visual.parameters(), *visual.buffers()))
    return None if has_rest else ImageTower(visual)


def _fitting(
    towers: nn.Module, state: dict[str, Tensor], name: str, path: Path
) -> dict[str, Tensor]:
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
    return state
