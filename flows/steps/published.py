"""Files as other people's code reads and writes them: mappers (`.pth`) and relevance matrices."""

import io
import json
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from flows.steps.output import config_path, write_config_beside, write_output
from flows.steps.train import run_store
from pipeline.errors import CheckpointError, ShapeError, WeightsError
from pipeline.models.weights import load_mapper, read_weights
from pipeline.training import MAPPER_NAME, TrainedMapper, export_official, load_trained
from pipeline.training.checkpoint import METADATA_KEY

PUBLISHED_CLIP_PRE = "box7"
"""CLIP pre-processing of every published mapper."""
MADE_FROM = "made_from"
_CLIP_PRE = re.compile(r"\bpre=(\w+)")


def export_mapper(run: Path, out: Path) -> TrainedMapper:
    """Write a run's mapper as the published code loads it, and beside it what it was made from.

    Args:
        run: a finished training run.
        out: the file, such as ``net_face.pth``.

    Returns:
        The mapper.

    Raises:
        CheckpointError: there is no finished run, or the published network has not its options.
    """
    run_store(run)
    data = (run / MAPPER_NAME).read_bytes()
    buffer = io.BytesIO()
    torch.save(export_official(data), buffer)
    trained = load_trained(data)
    write_output(out, buffer.getvalue())
    write_config_beside(out, {"run": run.absolute()}, made_from=dict(trained.made_from))
    return trained


def read_mapper(path: Path) -> TrainedMapper:
    """A mapper in the published layout, or in that of our runs.

    What a published file was made from is read from the JSON beside it, where `export_mapper` left
    one.

    Raises:
        WeightsError: damaged, unsafe, or no Delta Mapper.
        CheckpointError: a file of our runs that does not fit this version.
    """
    if METADATA_KEY in read_weights(path).metadata:
        return load_trained(path)
    mapper, _info = load_mapper(path)
    return TrainedMapper(
        mapper=mapper,
        s_centre=torch.zeros(mapper.config.s_dim),
        s_std=torch.ones(mapper.config.s_dim),
        z_score=False,
        step=0,
        made_from=_made_from(config_path(path)),
    )


def _made_from(path: Path) -> dict[str, str]:
    if not path.is_file():
        return {}
    try:
        return {str(k): str(v) for k, v in json.loads(path.read_bytes()).get(MADE_FROM, {}).items()}
    except (ValueError, AttributeError) as error:
        raise CheckpointError(
            f"{path} should say what the mapper beside it was made from ({error}); export it "
            "again, or remove the file if the mapper is a published one"
        ) from error


def choose_clip_pre(made_from: Mapping[str, str], asked: str | None) -> str:
    """The CLIP pre-processing that a mapper must be given.

    Args:
        made_from: what the mapper says it was made from.
        asked: what the user wants; None for the mapper's own, box7 where it says nothing.

    Raises:
        CheckpointError: the two differ.
    """
    match = _CLIP_PRE.search(made_from.get("clip", ""))
    if match is None:
        return asked or PUBLISHED_CLIP_PRE
    if asked not in (None, match[1]):
        raise CheckpointError(
            f"clip_pre: the mapper was trained with {match[1]}, --clip-pre asks for {asked}; leave "
            "it out, or give a mapper that was trained with it"
        )
    return match[1]


def read_relevance(path: Path, expected: tuple[int, int]) -> np.ndarray:
    """A relevance matrix [S, C] float32: StyleCLIP's ``fs3.npy``, or ``rs`` of an ``.npz``.

    Raises:
        WeightsError: it cannot be read.
        ShapeError: it is not of the shape `expected`.
    """
    try:
        loaded = np.load(path, allow_pickle=False)
        rs = loaded if isinstance(loaded, np.ndarray) else loaded["rs"]
    except (ValueError, KeyError, EOFError, OSError) as error:
        raise WeightsError(
            f"{path}: expected fs3.npy, or an .npz with the array rs; found {error}"
        ) from error
    if rs.shape != expected:
        raise ShapeError(
            f"{path}: relevance of shape {list(rs.shape)}, the mapper takes {list(expected)} "
            "(channels of S, width of CLIP); give the matrix of its generator"
        )
    if not np.isfinite(rs).all():
        raise WeightsError(f"{path}: the relevance matrix has NaN or infinite values; make it anew")
    return rs.astype(np.float32, copy=False)
