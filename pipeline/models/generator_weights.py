"""StyleGAN2 generators from rosinality-layout files."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pipeline.errors import WeightsError
from pipeline.models.s_layout import SIZES
from pipeline.models.state_dicts import (
    State,
    build_empty,
    count_keys,
    describe,
    fill,
    tensors_of,
    with_prefix,
)
from pipeline.models.stylegan2 import Generator
from pipeline.models.stylegan2_layers import fir_kernel
from pipeline.models.weights_file import FileInfo, read_weights

MARKER = "conv1.conv.modulation.weight"
MEAN_W_SAMPLES = 4096
MEAN_W_SEED = 0
KERNEL_TOLERANCE = 1e-4


def load_generator(path: Path, *, sha256: str | None = None) -> tuple[Generator, FileInfo]:
    """A frozen StyleGAN2 generator of any size from 32 to 1024 px and any channel counts.

    Its ``latent_avg`` is the file's, else the sampled mean of w.

    Args:
        path: ``g_ema`` checkpoint, bare state dict, e4e checkpoint with ``decoder.`` keys, or
            safetensors.
        sha256: digest that the file must have.

    Raises:
        WeightsError: damaged or unsafe file, another architecture, missing or unknown entries, or
            an upsampling filter other than [1, 3, 3, 1].
    """
    file = read_weights(path, sha256=sha256)
    state = _generator_state(file.state)
    if MARKER not in state:
        raise WeightsError(
            f"{path}: expected a StyleGAN2 generator (key {MARKER}, alone or in g_ema, or with "
            f"the prefix decoder.), found {describe(file.state)}"
        )
    latent_avg = state.pop("latent_avg", file.state.get("latent_avg"))
    generator = _empty_generator(state, path)
    _check_kernels(state, path)
    fill(generator, state, f"{path}: StyleGAN2 generator of {generator.size} px")
    center = None if latent_avg is None else _mean_of_file(latent_avg, generator, path)
    generator.latent_avg = mean_w(generator) if center is None else center
    return generator, file.info


def mean_w(generator: Generator, samples: int = MEAN_W_SAMPLES) -> Tensor:
    """Mean [D] of w over `samples` z of a fixed seed, for files without ``latent_avg``."""
    noise = torch.Generator().manual_seed(MEAN_W_SEED)
    z = torch.randn(samples, generator.style_dim, generator=noise)
    with torch.no_grad():
        return generator.map(z.to(generator.latent_avg.device)).mean(dim=0)


def _generator_state(state: Mapping[str, Any]) -> State:
    """The generator's tensors, wherever a checkpoint keeps them."""
    candidates = (
        tensors_of(state.get("g_ema")),
        with_prefix(tensors_of(state.get("state_dict")), "decoder."),
        with_prefix(state, "decoder."),
    )
    return next((found for found in candidates if found), tensors_of(state))


def _empty_generator(state: State, path: Path) -> Generator:
    """A generator of the sizes of `state`, to be filled."""
    num_doublings = count_keys(state, r"^to_rgbs\.\d+\.conv\.weight$")
    size = 4 << num_doublings
    if size not in SIZES:
        raise WeightsError(f"{path}: a generator of {size} px, expected one of {SIZES}")
    first, mapping = "conv1.conv.weight", "style.1.weight"
    ups = [f"convs.{2 * block}.conv.weight" for block in range(num_doublings)]
    missing = [key for key in (mapping, first, *ups) if key not in state]
    if missing:
        raise WeightsError(
            f"{path}: a StyleGAN2 generator of {size} px lacks {', '.join(missing)}; the file is "
            "incomplete, download or convert it again"
        )
    channels = [state[first].shape[2], *(state[key].shape[1] for key in ups)]
    num_mapping = count_keys(state, r"^style\.\d+\.weight$")
    return build_empty(Generator, size, channels, state[mapping].shape[1], num_mapping)


def _check_kernels(state: State, path: Path) -> None:
    """Refuse filters that the code, which has [1, 3, 3, 1] built in, would silently replace."""
    expected = fir_kernel()
    for key in (key for key in state if key.endswith(".kernel")):
        kernel = state[key]
        if kernel.shape != expected.shape or not torch.allclose(
            kernel, expected, atol=KERNEL_TOLERANCE
        ):
            raise WeightsError(
                f"{path}: {key} is {kernel.tolist()}, expected the filter [1, 3, 3, 1] (outer "
                "product, sum 4); generators with other filters are not supported"
            )


def _mean_of_file(latent_avg: Tensor, generator: Generator, path: Path) -> Tensor | None:
    """``latent_avg`` as [D]; None where its rows differ, which no mean of w does.

    e4e checkpoints repeat the vector on every row of W+.
    """
    dim, num_w = generator.style_dim, generator.layout.num_w
    if tuple(latent_avg.shape) not in {(dim,), (1, dim), (num_w, dim)}:
        raise WeightsError(
            f"{path}: latent_avg has shape {list(latent_avg.shape)}, expected [{dim}] or "
            f"[{num_w}, {dim}]"
        )
    rows = latent_avg.reshape(-1, dim)
    return rows[0].clone() if bool((rows == rows[0]).all()) else None
