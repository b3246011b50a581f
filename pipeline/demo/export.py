"""From training states of the avatar world to the files that ship: safetensors, half precision."""

import torch
from safetensors.torch import save
from torch import Tensor, nn

from pipeline.demo.train_autoencoder import ENCODER, Autoencoder
from pipeline.models.layers import EqualLinear
from pipeline.models.stylegan2_layers import ModulatedConv2d


@torch.no_grad()
def centre_codes(model: Autoencoder, images: Tensor) -> Tensor:
    """Move the mean of the codes from the encoder's bias into a vector of its own.

    Official encoders give offsets from an average latent; so must ours.

    Args:
        model: an autoencoder in evaluation mode; its encoder is changed in place.
        images: [N, 3, 64, 64] float32 in -1..1.

    Returns:
        The average latent [D].
    """
    codes = torch.cat([model.encoder(batch)[:, 0] for batch in images.split(256)])
    mean = codes.mean(dim=0)
    # Every code is code 0 plus an offset of its own, so this bias reaches all of them.
    linear = model.encoder.get_submodule("styles.0.linear")
    assert isinstance(linear, EqualLinear)
    linear.bias.sub_(mean / linear.bias_gain)
    return mean


CODE_SHIFT = 2.5
"""Added to every code; more than five times the codes' standard deviation."""


@torch.no_grad()
def shift_codes(model: Autoencoder, shift: float = CODE_SHIFT) -> None:
    """Add a constant to all codes of encoder and generator; every picture stays as it is.

    The mapping network ends in a leaky ReLU, which cannot easily give codes around zero. The style
    layers take the constant back; they do so with their weights as they ship, in half precision.
    """
    linear = model.encoder.get_submodule("styles.0.linear")
    assert isinstance(linear, EqualLinear)
    linear.bias.add_(shift / linear.bias_gain)
    for module in model.generator.modules():
        if isinstance(module, ModulatedConv2d):
            style = module.modulation
            shipped = style.weight.half().float() * style.weight_gain
            style.bias.sub_(shipped.sum(dim=1) * shift / style.bias_gain)


def generator_file(model: Autoencoder, latent_avg: Tensor) -> bytes:
    """The generator as ``generator.safetensors``."""
    return save(_halved(model.generator.state_dict()) | {"latent_avg": latent_avg.clone()})


def encoder_file(model: Autoencoder, latent_avg: Tensor) -> bytes:
    """The encoder as ``e4e.safetensors``; its input size goes into the metadata."""
    state = {f"encoder.{key}": value for key, value in _halved(model.encoder.state_dict()).items()}
    metadata = {
        "input_height": str(ENCODER.input_height),
        "input_width": str(ENCODER.input_width),
    }
    return save(state | {"latent_avg": latent_avg.clone()}, metadata)


def halved_file(model: nn.Module) -> bytes:
    """A model's state dict as a safetensors file: ``avatar-clip``, ``reader``."""
    return save(_halved(model.state_dict()))


def _halved(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights in half precision; counters, filters (which loaders compare) and vectors as are."""
    return {
        key: (
            value.half()
            if value.is_floating_point() and value.ndim > 1 and not key.endswith("kernel")
            else value
        ).contiguous()
        for key, value in state.items()
    }
