"""Training state and trained mappers as safetensors bytes, without pickle.

One file holds tensors and, in its metadata, one JSON document. Tensor names: ``mapper.<key>`` the
weights to use, ``live.<key>`` the weights being trained where they differ (weight averaging),
``adam.exp_avg.<key>``, ``adam.exp_avg_sq.<key>`` and ``adam.step`` the optimiser, ``s_centre``
and ``s_std`` the scaling of codes. Pairs are drawn by step number, so that the step is
the whole state of the random numbers.
"""

import json
import struct
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from pipeline.errors import CheckpointError
from pipeline.models.delta_mapper import DeltaMapper, DeltaMapperConfig
from pipeline.pairs.deltas import FloatRows
from pipeline.shapes import assert_shape
from pipeline.training.gather import Condition

FORMAT = 1
METADATA_KEY = "deltaedit"
MAPPER_PREFIX = "mapper."


@dataclass(frozen=True, kw_only=True, slots=True)
class Checkpoint:
    """Tensors by name, and the document that says what they are."""

    tensors: dict[str, Tensor]
    """Named as the module docstring says."""
    document: dict[str, Any]
    """JSON values: step, config, recipe, mapper, made_from, and for a resumable file rows_sha256
    and history."""

    def part(self, prefix: str) -> dict[str, Tensor]:
        """The tensors below `prefix`, their names without it."""
        return {
            name.removeprefix(prefix): tensor
            for name, tensor in self.tensors.items()
            if name.startswith(prefix)
        }


def to_bytes(checkpoint: Checkpoint) -> bytes:
    """Serialise; equal checkpoints give equal bytes."""
    document = {"format": FORMAT, **checkpoint.document}
    text = json.dumps(document, sort_keys=True, allow_nan=False)
    tensors = {name: tensor.detach().contiguous() for name, tensor in checkpoint.tensors.items()}
    return save(tensors, {METADATA_KEY: text})


def from_bytes(data: bytes) -> Checkpoint:
    """The inverse of `to_bytes`.

    Raises:
        CheckpointError: the bytes are cut, damaged, not ours, or of a newer format.
    """
    try:
        tensors = load(data)
        (header_size,) = struct.unpack("<Q", data[:8])
        text = json.loads(data[8 : 8 + header_size])["__metadata__"][METADATA_KEY]
        document = json.loads(text)
    except (SafetensorError, struct.error, KeyError, ValueError) as error:
        raise CheckpointError(
            f"{len(data)} bytes are not a whole checkpoint of this program ({error!r}): use an "
            "earlier one, or start again"
        ) from error
    if document.get("format") != FORMAT:
        raise CheckpointError(
            f"checkpoint format {document.get('format')}, this version reads {FORMAT}: use the "
            "version that wrote it"
        )
    return Checkpoint(tensors=tensors, document=document)


@dataclass(frozen=True, kw_only=True)
class TrainedMapper:
    """A trained mapper with everything that its use needs."""

    mapper: DeltaMapper
    """Frozen, in evaluation mode."""
    s_centre: Tensor
    """[S] float32, subtracted from raw codes before they are divided by `s_std`."""
    s_std: Tensor
    """[S] float32, of the training rows; 0 for a channel that never varied."""
    z_score: bool
    """Whether the mapper reads and predicts scaled codes."""
    step: int
    """Updates that made it."""
    condition: Condition = "delta"
    """What its conditions say of the target: give `predict` conditions of this kind."""
    made_from: Mapping[str, str] = field(default_factory=dict[str, str])
    """What the store said of its columns: `clip_pre`, CLIP name and digest, and so on."""

    @property
    def config(self) -> DeltaMapperConfig:
        """Sizes and variants."""
        return self.mapper.config

    @torch.inference_mode()
    def predict(self, s: FloatRows, condition: FloatRows) -> Tensor:
        """Change of raw codes that the conditions ask for.

        Args:
            s: [N, S] float32 raw codes.
            condition: [N, 2C] float32, from `pair_conditions` or `edit_conditions`.

        Returns:
            [N, S] float32, to be added to `s`, on the device of the mapper.

        Raises:
            ShapeError: a width differs from the trained one.
        """
        device = self.s_centre.device
        s = torch.as_tensor(s, dtype=torch.float32, device=device)
        condition = torch.as_tensor(condition, dtype=torch.float32, device=device)
        assert_shape(s, (None, self.config.s_dim), "s")
        if not self.z_score:
            return self.mapper(s, condition)
        scaled = (s - self.s_centre) * torch.where(self.s_std > 0, 1.0 / self.s_std, 0.0)
        return self.mapper(scaled, condition) * self.s_std


def load_trained(source: Path | str | bytes, device: torch.device | str = "cpu") -> TrainedMapper:
    """Load a trained mapper, from a finished run's file or from any of its checkpoints.

    Args:
        source: a path, or the bytes themselves.
        device: where to predict.

    Raises:
        CheckpointError: the bytes are not one of our checkpoints, or their weights do not fit.
    """
    checkpoint = from_bytes(source if isinstance(source, bytes) else Path(source).read_bytes())
    document = checkpoint.document
    mapper = DeltaMapper(mapper_config(document["mapper"]))
    load_weights(mapper, checkpoint.part(MAPPER_PREFIX))
    return TrainedMapper(
        mapper=mapper.eval().requires_grad_(requires_grad=False).to(device),
        s_centre=checkpoint.tensors["s_centre"].to(device),
        s_std=checkpoint.tensors["s_std"].to(device),
        z_score=document["recipe"]["z_score"],
        step=document["step"],
        condition=document["config"].get("condition", "delta"),
        made_from=document["made_from"],
    )


def mapper_config(values: Mapping[str, Any]) -> DeltaMapperConfig:
    """The inverse of `dataclasses.asdict` after a way through JSON."""
    return DeltaMapperConfig(**{**values, "widths": tuple(values["widths"])})


def load_weights(mapper: DeltaMapper, state: Mapping[str, Tensor]) -> None:
    """Copy `state` into `mapper`, every key and no other.

    Raises:
        CheckpointError: names or shapes differ.
    """
    try:
        mapper.load_state_dict(state)
    except RuntimeError as error:
        raise CheckpointError(f"weights do not fit the mapper {mapper.config}: {error}") from error


def export_official(data: bytes) -> dict[str, Tensor]:
    """The state dict that the published code loads as ``net_face.pth``.

    Raises:
        CheckpointError: the mapper uses what the published network has not: z-scored codes, a
            normalisation over channels, or a linear head.
    """
    trained = load_trained(data)
    published = DeltaMapperConfig(widths=trained.config.widths, clip_dim=trained.config.clip_dim)
    if trained.z_score or trained.config != published:
        raise CheckpointError(
            f"z_score={trained.z_score} and {asdict(trained.config)} cannot be written as "
            "net_face.pth, whose network has no such options: train with recipe official"
        )
    return dict(trained.mapper.state_dict())
