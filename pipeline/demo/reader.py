"""The attribute reader: a picture of an avatar -> what it shows. For measuring edits only.

It is trained on drawings whose attributes are known (`train_reader`), never sees a generated
picture while it is trained, and takes no part in training anything else.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from pipeline.demo.avatars import (
    CLOTHES,
    CLOTHES_COLORS,
    EYEBROWS,
    EYES,
    FACIAL_HAIR,
    GLASSES,
    HAIR_COLORS,
    HAIR_STYLES,
    HATS,
    IMAGE_SIZE,
    MOUTHS,
    SKIN_TONES,
    Attributes,
)
from pipeline.images import to_float
from pipeline.shapes import Pixels, assert_shape

HIDDEN = "hidden"
VALUES: dict[str, tuple[str, ...]] = {
    "hair_style": (*HAIR_STYLES, HIDDEN),
    "hair_color": (*HAIR_COLORS, HIDDEN),
    "hat": ("none", *HATS),
    "skin_tone": tuple(SKIN_TONES),
    "facial_hair": tuple(FACIAL_HAIR),
    "glasses": tuple(GLASSES),
    "eyes": (*EYES, HIDDEN),
    "eyebrows": (*EYEBROWS, HIDDEN),
    "mouth": tuple(MOUTHS),
    "clothes": tuple(CLOTHES),
    "clothes_color": (*CLOTHES_COLORS, HIDDEN),
}
"""Every attribute of `Attributes` and the values that it can have."""
WIDTHS = (32, 64, 96, 128, 160)
FEATURES = 256
BATCH = 256


class AttributeReader(nn.Module):
    """A small convolutional network with one classifier for each attribute."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        before = 3
        for number, width in enumerate(WIDTHS):
            stride = 1 if number == 0 else 2
            layers += [
                nn.Conv2d(before, width, 3, stride, 1, bias=False),
                nn.BatchNorm2d(width),
                nn.ReLU(inplace=True),
            ]
            before = width
        side = IMAGE_SIZE >> (len(WIDTHS) - 1)
        self.body = nn.Sequential(*layers, nn.Flatten(), nn.Linear(before * side**2, FEATURES))
        self.heads = nn.ModuleDict(
            {name: nn.Linear(FEATURES, len(values)) for name, values in VALUES.items()}
        )

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """[N, 3, 64, 64] float32 in -1..1 -> for each attribute logits [N, values]."""
        features = F.relu(self.body(images))
        return {name: head(features) for name, head in self.heads.items()}

    @torch.inference_mode()
    def read(self, pixels: Pixels) -> dict[str, Tensor]:
        """Pictures [N, 64, 64, 3] uint8 -> for each attribute the numbers [N] of its values.

        Raises:
            ShapeError: the pictures have another size.
        """
        assert_shape(pixels, (None, IMAGE_SIZE, IMAGE_SIZE, 3), "pixels")
        found: dict[str, list[Tensor]] = {name: [] for name in VALUES}
        for batch in torch.from_numpy(pixels).split(BATCH):
            for name, logits in self(to_float(batch)).items():
                found[name].append(logits.argmax(dim=1))
        return {name: torch.cat(parts) for name, parts in found.items()}


def labels_of(people: Sequence[Attributes]) -> dict[str, Tensor]:
    """For each attribute the numbers [N] of the values that N avatars have."""
    return {
        name: torch.tensor([values.index(getattr(person, name)) for person in people])
        for name, values in VALUES.items()
    }


def load_reader(path: Path) -> AttributeReader:
    """The reader of a file, frozen, in evaluation mode."""
    reader = AttributeReader()
    reader.load_state_dict({name: value.float() for name, value in load_file(path).items()})
    return reader.eval().requires_grad_(requires_grad=False)
