"""Delta Mappers from and to the layout of the published ``net_face.pth``.

The layout has no room for the variants of `DeltaMapperConfig`; checkpoints of our own trainer,
which carry their whole configuration, are read by pipeline/training/checkpoint.py.
"""

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from pipeline.errors import WeightsError
from pipeline.models.delta_mapper import DeltaMapper, DeltaMapperConfig, PixelNormAxis
from pipeline.models.s_layout import COARSE_LAYERS, MEDIUM_LAYERS, published_layouts
from pipeline.models.state_dicts import State, build_empty, describe, fill, tensors_of
from pipeline.models.weights_file import FileInfo, read_weights

MARKER = "sm_coarse.mapping.1.weight"
CONDITION = "cm_coarse.mapping.1.weight"
MEDIUM = "sm_medium.mapping.1.weight"
FINE = "sm_fine.mapping.1.weight"


def load_mapper(
    path: Path,
    *,
    widths: Sequence[int] | None = None,
    pixelnorm_axis: PixelNormAxis = "layers",
    linear_head: bool = False,
    sha256: str | None = None,
) -> tuple[DeltaMapper, FileInfo]:
    """A frozen Delta Mapper from a state dict in the published layout.

    Args:
        path: PyTorch file or safetensors.
        widths: layers of S; default: those of the published generator that the shapes belong to,
            or one fine layer of all fine channels where they belong to none.
        pixelnorm_axis: variant that the weights were trained with.
        linear_head: variant that the weights were trained with.
        sha256: digest that the file must have.

    Raises:
        WeightsError: damaged or unsafe file, another architecture, missing or unknown entries, or
            other widths than `widths`.
    """
    file = read_weights(path, sha256=sha256)
    state = tensors_of(file.state)
    missing = [key for key in (MARKER, MEDIUM, CONDITION) if key not in state]
    if missing:
        raise WeightsError(
            f"{path}: expected a Delta Mapper (net_face.pth layout; without {', '.join(missing)}), "
            f"found {describe(file.state)}"
        )
    config = DeltaMapperConfig(
        widths=_widths_of(state) if widths is None else tuple(widths),
        clip_dim=state[CONDITION].shape[1] // 2,
        pixelnorm_axis=pixelnorm_axis,
        linear_head=linear_head,
    )
    mapper = build_empty(DeltaMapper, config)
    fill(mapper, state, f"{path}: Delta Mapper for {config.s_dim} style channels")
    return mapper, file.info


def mapper_state(mapper: DeltaMapper) -> dict[str, Tensor]:
    """The weights in the published layout, float32 on the CPU, for ``torch.save``."""
    state = mapper.state_dict()
    return {key: value.detach().float().cpu().clone() for key, value in state.items()}


def _widths_of(state: State) -> tuple[int, ...]:
    """Layers of S whose groups have the widths of `state`."""
    coarse, medium = state[MARKER].shape[0], state[MEDIUM].shape[0]
    fine = state[FINE].shape[0] if FINE in state else 0
    shared = (coarse,) * COARSE_LAYERS + (medium,) * MEDIUM_LAYERS
    for layout in published_layouts():
        widths = layout.widths
        if widths[: len(shared)] == shared and sum(widths[len(shared) :]) == fine:
            return widths
    return (*shared, fine) if fine else shared
