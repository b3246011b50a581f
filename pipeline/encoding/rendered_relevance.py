"""The relevance matrix by rendering: what CLIP sees when one style channel moves.

Patashnik et al. 2021 ("StyleCLIP"), section 6.2, as its published code constructs ``fs3.npy``, with
one correction: there, a channel that was set to its mean stays there while the following channels
are looked at, so that the pictures of late layers have lost their coarse structure.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.errors import PipelineError
from pipeline.images import to_uint8
from pipeline.models.clip import ClipModel
from pipeline.models.clip_pre import ClipPre
from pipeline.models.stylegan2 import Generator, Partial
from pipeline.shapes import Floats, assert_shape


@dataclass(frozen=True, kw_only=True, slots=True)
class RenderedConfig:
    """How channels are moved."""

    num_images: int = 100
    """Codes that every channel is moved in; published: 100."""

    strength: float = 5.0
    """Standard deviations to either side of the channel's mean; published: 5."""

    batch_size: int = 64
    """Pictures rendered at once; two for each code."""

    published_order: bool = False
    """Leave every channel that is done at its mean, as the published code does by mistake."""

    def __post_init__(self) -> None:
        if self.num_images < 1 or self.batch_size < 2 or self.strength <= 0:  # noqa: PLR2004
            raise PipelineError(
                f"num_images is {self.num_images}, batch_size {self.batch_size} and strength "
                f"{self.strength}: at least 1, at least 2 and positive"
            )


class ChannelProbe:
    """Renders the pictures of single channels moved down and up.

    Everything before the layer of a channel is the same for all channels of that layer, and is
    computed once.
    """

    def __init__(
        self,
        generator: Generator,
        clip: ClipModel,
        *,
        s: Floats,
        w_plus: Floats,
        mean: Floats,
        std: Floats,
        clip_pre: ClipPre = "official",
        config: RenderedConfig | None = None,
    ) -> None:
        """Prepare the codes.

        Args:
            generator: renders.
            clip: looks.
            s: [N, S] float32 codes; the first `num_images` are used.
            w_plus: [N, L, D] float32 of the same rows; they drive toRGB.
            mean: [S] float32 mean of each channel over the data.
            std: [S] float32, its standard deviation.
            clip_pre: CLIP's pre-processing.
            config: how channels are moved.

        Raises:
            PipelineError: there are fewer codes than asked for.
            ShapeError: the widths differ.
        """
        self._config = config = config or RenderedConfig()
        if len(s) < config.num_images:
            raise PipelineError(
                f"num_images is {config.num_images}, but there are {len(s)} codes: encode more "
                "images or ask for fewer"
            )
        assert_shape(mean, (generator.layout.total,), "mean")
        assert_shape(std, (generator.layout.total,), "std")
        self._generator, self._clip = generator, clip
        self._clip_pre: ClipPre = clip_pre
        device = generator.latent_avg.device
        self._s, self._w_plus, self._mean, self._std = (
            torch.from_numpy(np.ascontiguousarray(values)).to(device)
            for values in (s[: config.num_images], w_plus[: config.num_images], mean, std)
        )

    @torch.inference_mode()
    def layer(self, index: int) -> Floats:
        """Relevance of the channels of one layer: [width, C] float32 unit rows.

        The rows are ``n(mean_i n(n(f+) - n(f-)))`` over the codes i, f the CLIP embeddings of the
        two pictures and n division by the length. A channel that changes no picture gives zeros.
        """
        layer = self._generator.layout.layers[index]
        s = self._s.clone()
        if self._config.published_order:
            s[:, : layer.offset] = self._mean[: layer.offset]
        blocks = list(self._blocks(s, index))
        rows = []
        for channel in range(layer.offset, layer.offset + layer.width):
            rows.append(self._channel(blocks, channel))
            if self._config.published_order:
                for block in blocks:
                    block[0][:, channel] = self._mean[channel]
        return torch.stack(rows).float().cpu().numpy()

    def _blocks(self, s: Tensor, index: int) -> Iterator[tuple[Tensor, Tensor, Partial]]:
        """Codes and W+, each twice over, with what their pictures share before layer `index`."""
        for start in range(0, len(s), self._config.batch_size // 2):
            block = slice(start, start + self._config.batch_size // 2)
            codes, w_plus = s[block], self._w_plus[block]
            shared = self._generator.advance(
                self._generator.begin(len(codes)), codes, w_plus, stop=index
            )
            image = shared.image
            twice = Partial(
                torch.cat([shared.x, shared.x]),
                None if image is None else torch.cat([image, image]),
                shared.done,
            )
            yield torch.cat([codes, codes]), torch.cat([w_plus, w_plus]), twice

    def _channel(self, blocks: list[tuple[Tensor, Tensor, Partial]], channel: int) -> Tensor:
        step = self._config.strength * self._std[channel]
        if step == 0:
            return torch.zeros(self._clip.dim, device=step.device)
        total = None
        for codes, w_plus, shared in blocks:
            moved, half = codes.clone(), len(codes) // 2
            moved[:half, channel] = self._mean[channel] - step
            moved[half:, channel] = self._mean[channel] + step
            layers = len(self._generator.layout.layers)
            done = self._generator.advance(shared, moved, w_plus, stop=layers)
            pixels = to_uint8(self._generator.finish(done))
            features = F.normalize(self._clip.encode_images(pixels, self._clip_pre), dim=1)
            directions = F.normalize(features[half:] - features[:half], dim=1).sum(dim=0)
            total = directions if total is None else total + directions
        assert total is not None
        return F.normalize(total, dim=0)


def agreement(one: Floats, other: Floats) -> Floats:
    """Cosine of each channel's direction in two relevance matrices [S, C]: [S], 0 for zero rows."""
    assert_shape(other, one.shape, "other")
    lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    products = np.vecdot(one, other)
    return np.divide(products, lengths, out=np.zeros_like(products), where=lengths > 0)
