"""State dicts and modules: find one in a checkpoint, say what it is, load all or nothing."""

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.errors import WeightsError

State = dict[str, Tensor]

MAX_NAMED = 3

# A key that only one architecture has -> what to call that architecture.
ARCHITECTURES = (
    (r"^conv1\.conv\.modulation\.weight$", "a StyleGAN2 generator (rosinality layout)"),
    (r"^styles\.0\.linear\.weight$", "an e4e or pSp encoder"),
    (r"^sm_coarse\.mapping\.", "a Delta Mapper"),
    (r"(^|\.)course_mapping\.|^mapping\.\d+\.weight$", "a StyleCLIP mapper"),
    (r"^(synthesis|mapping)\.\w+", "a StyleGAN2 generator in NVIDIA's PyTorch layout"),
    (r"^final_conv\.0\.weight$|^final_linear\.0\.weight$", "a StyleGAN2 discriminator"),
    (r"^visual\.|^text_projection$", "a CLIP model"),
    (r"^output_layer\.", "an ArcFace network"),
)


def tensors_of(value: object) -> State:
    """The tensors of a dict by key, empty for anything else."""
    if not isinstance(value, Mapping):
        return {}
    return {str(key): item for key, item in value.items() if isinstance(item, Tensor)}


def with_prefix(state: Mapping[str, Any], prefix: str) -> State:
    """The tensors under `prefix`, which is taken off their keys."""
    tensors = tensors_of(state)
    return {key[len(prefix) :]: item for key, item in tensors.items() if key.startswith(prefix)}


def describe(state: Mapping[str, Any]) -> str:
    """What a checkpoint seems to be, for messages: an architecture, or its first keys."""
    parts = {"": tensors_of(state)}
    for outer in ("g_ema", "state_dict"):
        inner = tensors_of(state.get(outer))
        parts |= {f"{outer}: ": inner} if inner else {}
        for prefix in ("encoder.", "decoder.", "module."):
            nested = with_prefix(inner, prefix)
            parts |= {f"{outer}, {prefix}: ": nested} if nested else {}
    found = [
        f"{where}{name}"
        for where, keys in parts.items()
        for pattern, name in ARCHITECTURES
        if any(re.search(pattern, key) for key in keys)
    ]
    if found:
        return "; ".join(found)
    keys = [str(key) for key in state][:MAX_NAMED]
    return f"keys {', '.join(keys)}, ..." if keys else "no entries"


def count_keys(state: Mapping[str, Any], pattern: str) -> int:
    """How many keys match a regular expression."""
    return sum(re.search(pattern, key) is not None for key in state)


def build_empty(build: type[nn.Module], *args: Any) -> Any:
    """`build(*args)` on the CPU with unset weights: random ones would take seconds to draw."""
    with torch.device("meta"):
        module = build(*args)
    return module.to_empty(device="cpu")


def fill(module: nn.Module, state: State, what: str) -> None:
    """Load `state` into `module`, all of it or nothing, and freeze the module.

    Counters of batch normalisation may be missing: only training reads them.

    Args:
        module: the network; it is left in eval mode without gradients.
        state: tensors by the module's keys.
        what: file and network, for messages.

    Raises:
        WeightsError: names the first entries that are missing, unknown or of another shape.
    """
    own = module.state_dict()
    counters = {key: torch.zeros_like(own[key]) for key in own if key.endswith("batches_tracked")}
    state = counters | state
    want = {key: tuple(value.shape) for key, value in own.items()}
    have = {key: tuple(value.shape) for key, value in state.items()}
    wrong = [key for key in {**want, **have} if want.get(key) != have.get(key)]
    if wrong:
        shown = "; ".join(
            f"{key}: expected {_shape(want.get(key))}, found {_shape(have.get(key))}"
            for key in wrong[:MAX_NAMED]
        )
        raise WeightsError(f"{what}: {len(wrong)} of {len(want)} entries do not fit ({shown})")
    module.load_state_dict(state)
    module.eval().requires_grad_(requires_grad=False)


def _shape(shape: tuple[int, ...] | None) -> str:
    return "nothing" if shape is None else f"shape {list(shape)}"
