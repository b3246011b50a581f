"""e4e encoders from their published checkpoints."""

from collections.abc import Mapping
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pipeline.errors import WeightsError
from pipeline.models.e4e import BODY_STRIDE, E4E, E4EConfig, Encoder
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
from pipeline.models.weights_file import FileInfo, WeightsFile, read_weights

MARKER = "styles.0.linear.weight"
ENCODER_TYPE = "Encoder4Editing"
NUM_STAGES = 4
CAR_ASPECT = 3 / 4


def load_e4e(
    path: Path, generator: Generator, *, sha256: str | None = None, precision: str = "float32"
) -> tuple[E4E, FileInfo]:
    """A frozen e4e encoder whose codes fit `generator`.

    The input is square unless the file says otherwise: ``opts`` of a car encoder (3:4), or
    ``input_height`` in safetensors metadata. Codes are offsets from ``latent_avg`` of the file,
    else from the generator's, unless ``opts`` says that training did not start from it.

    Args:
        path: e4e checkpoint, bare encoder state dict, or safetensors.
        generator: what the codes are for.
        sha256: digest that the file must have.
        precision: `E4E.precision`.

    Raises:
        WeightsError: damaged or unsafe file, another architecture, missing or unknown entries, or
            codes that do not fit `generator`.
    """
    file = read_weights(path, sha256=sha256)
    state = _encoder_state(file.state)
    opts = _options(file)
    if MARKER not in state:
        raise WeightsError(
            f"{path}: expected an e4e encoder (key encoder.{MARKER} in state_dict, or the same "
            f"without nesting), found {describe(file.state)}"
        )
    latent_avg = state.pop("latent_avg", file.state.get("latent_avg"))
    if not opts.get("start_from_latent_avg", True):
        latent_avg = torch.zeros(generator.style_dim)
    elif latent_avg is None:
        latent_avg = generator.latent_avg.cpu()
    config = _with_input_size(_config_of(state, path), file)
    if _is_car(opts):
        config, state, latent_avg = _without_spare_heads(config, state, latent_avg, generator)
    _check_fit(config, generator, path)
    encoder = build_empty(Encoder, config)
    fill(encoder, state, f"{path}: e4e encoder with {config.num_w} codes")
    model = E4E(encoder, _code_offsets(latent_avg, config, path), precision=precision)
    return model.eval().requires_grad_(requires_grad=False), file.info


def _encoder_state(state: Mapping[str, Any]) -> State:
    """The encoder's tensors, wherever a checkpoint keeps them."""
    candidates = (
        with_prefix(tensors_of(state.get("state_dict")), "encoder."),
        with_prefix(state, "encoder."),
    )
    return next((found for found in candidates if found), tensors_of(state))


def _options(file: WeightsFile) -> Mapping[str, Any]:
    """The training options in the file; a pSp encoder, whose keys are the same, is refused."""
    opts = file.state.get("opts")
    opts = opts if isinstance(opts, Mapping) else {}
    kind = opts.get("encoder_type", ENCODER_TYPE)
    if kind != ENCODER_TYPE:
        raise WeightsError(f"{file.path}: opts name the encoder {kind}, expected {ENCODER_TYPE}")
    return opts


def _is_car(opts: Mapping[str, Any]) -> bool:
    return "car" in str(opts.get("dataset_type", ""))


def _config_of(state: State, path: Path) -> E4EConfig:
    """Sizes of the encoder: codes, stages, and the input side that its heads reduce to a pixel."""
    num_units = count_keys(state, r"^body\.\d+\.res_layer\.1\.weight$")
    keys = [f"body.{number}.res_layer.1.weight" for number in range(num_units)]
    missing = [key for key in keys if key not in state]
    runs = [
        (w, len(list(run))) for w, run in groupby(state[k].shape[0] for k in keys if k in state)
    ]
    if missing or len(runs) != NUM_STAGES:
        raise WeightsError(
            f"{path}: expected an e4e backbone of {NUM_STAGES} stages of growing width, found "
            f"(width, units) {runs}" + (f", without {', '.join(missing)}" if missing else "")
        )
    depth = count_keys(state, r"^styles\.0\.convs\.\d+\.weight$")
    (w0, n0), (w1, n1), (w2, n2), (w3, n3) = runs
    return E4EConfig(
        num_w=count_keys(state, r"^styles\.\d+\.linear\.weight$"),
        style_dim=state[MARKER].shape[0],
        stage_units=(n0, n1, n2, n3),
        stage_widths=(w0, w1, w2, w3),
        input_height=BODY_STRIDE << depth,
        input_width=BODY_STRIDE << depth,
    )


def _with_input_size(config: E4EConfig, file: WeightsFile) -> E4EConfig:
    """Input size by the file's metadata or options, where they give one."""
    height, width = config.input_height, config.input_width
    if _is_car(_options(file)):
        height = int(width * CAR_ASPECT)
    return replace(
        config,
        input_height=int(file.metadata.get("input_height", height)),
        input_width=int(file.metadata.get("input_width", width)),
    )


def _without_spare_heads(
    config: E4EConfig, state: State, latent_avg: Tensor, generator: Generator
) -> tuple[E4EConfig, State, Tensor]:
    """Published car encoders may have 18 heads; the first 16 serve the 512-px car generator."""
    num_w = min(config.num_w, generator.layout.num_w)
    spare = tuple(f"styles.{index}." for index in range(num_w, config.num_w))
    kept = {key: value for key, value in state.items() if not key.startswith(spare)}
    rows = latent_avg[:num_w] if latent_avg.ndim > 1 else latent_avg
    return replace(config, num_w=num_w), kept, rows


def _check_fit(config: E4EConfig, generator: Generator, path: Path) -> None:
    layout = generator.layout
    if (config.num_w, config.style_dim) != (layout.num_w, generator.style_dim):
        raise WeightsError(
            f"{path}: the encoder gives {config.num_w} codes of {config.style_dim}, the generator "
            f"of {generator.size} px takes {layout.num_w} of {generator.style_dim}; use the "
            "encoder that was trained for this generator"
        )


def _code_offsets(latent_avg: Tensor, config: E4EConfig, path: Path) -> Tensor:
    """``latent_avg`` as [L, D], one vector for all rows or one for each."""
    num_w, dim = config.num_w, config.style_dim
    if tuple(latent_avg.shape) not in {(dim,), (1, dim), (num_w, dim)}:
        raise WeightsError(
            f"{path}: latent_avg has shape {list(latent_avg.shape)}, expected [{num_w}, {dim}] or "
            f"[{dim}]"
        )
    return latent_avg.expand(num_w, dim).clone()
