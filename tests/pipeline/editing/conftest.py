"""Stand-ins for CLIP, as the golden numbers were made with."""

import zlib

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from pipeline.images import to_float
from pipeline.models.clip_pre import box7_input


class StandInClip:
    """Embeds the 79 sentences of a name, and a box7 input, as the golden recipe says."""

    def __init__(self, projection):
        self.projection = projection

    @staticmethod
    def encode_texts(texts):
        """E(name): [79, 512] of unequal lengths; the name is between known words."""
        assert texts[0].startswith("a bad photo of a ")
        name = texts[0].removeprefix("a bad photo of a ").removesuffix(".")
        base = np.random.RandomState(50).standard_normal(512)
        random = np.random.RandomState(zlib.crc32(name.encode()))
        own, noise = random.standard_normal(512), random.standard_normal((79, 512))
        length = random.uniform(0.5, 2, (79, 1))
        return torch.from_numpy(((base + 0.5 * own + 0.7 * noise) * length).astype(np.float32))

    def encode_images(self, pixels, pre):
        """P v, v the means of 7 x 7 blocks of the input."""
        assert pre == "box7"
        blocks = F.avg_pool2d(box7_input(to_float(pixels), 224), 32)
        return blocks.flatten(1) @ self.projection.T


@pytest.fixture(scope="session")
def stand_in_clip(recipe):
    return StandInClip(recipe.normal(52, (512, 147), scale=0.3))
