"""Evaluate a run: S-space fit on the held-out rows, and how CLIP and delta space align."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from flows.config import as_jsonable
from flows.steps.splits import eval_rows
from flows.steps.train import fit_table, run_store
from pipeline.evaluation import Alignment, alignment, s_space_fit, tsne
from pipeline.pictures import scatter
from pipeline.training import MAPPER_NAME, load_trained
from stores.atomic import make_folder, write_atomic
from stores.checksum import sha256_file
from stores.reader import StoreReader

RESULT_NAME = "evaluation.json"
ALIGNMENT_NAME = "alignment.png"
SPACES = ("CLIP space", "delta space")


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluateConfig:
    """One evaluation."""

    run: Path
    """A finished training run."""
    out: Path
    """Folder for ``evaluation.json``."""
    num_pairs: int = 2048
    """Held-out pairs that the fit is averaged over."""


def evaluate(config: EvaluateConfig) -> dict[str, object]:
    """S-space fit per group against the zero predictor, on pairs of held-out rows.

    Returns:
        ``raw`` and ``scaled`` (channels weighted alike), each with ``all``, ``coarse``, ``medium``
        and ``fine``; also written to the output folder.

    Raises:
        CheckpointError: there is no finished run.
        StoreError: the run's store is gone, or holds out too few rows.
    """
    reader = StoreReader(run_store(config.run))
    trained = load_trained(config.run / MAPPER_NAME)
    rows = eval_rows(reader)
    fit = s_space_fit(trained, reader, rows, num_pairs=config.num_pairs)
    result: dict[str, object] = {"eval rows": len(rows)}
    for space, groups in fit_table(fit).items():
        for group, values in groups.items():
            rounded = {name: round(value, 4) for name, value in values.items()}
            result[f"{space} {group}"] = rounded
    make_folder(config.out)
    document = {**_made_from(config), "result": result}
    write_atomic(config.out / RESULT_NAME, json.dumps(document, indent=2).encode())
    return result


def is_evaluated(config: EvaluateConfig) -> bool:
    """Whether the output folder holds the result of these settings for the run's present mapper."""
    try:
        document = json.loads((config.out / RESULT_NAME).read_text(encoding="utf-8"))
        return document.items() >= _made_from(config).items()
    except FileNotFoundError:
        return False


def _made_from(config: EvaluateConfig) -> dict[str, object]:
    return {
        "config": as_jsonable(config),
        "mapper_sha256": sha256_file(config.run / MAPPER_NAME),
    }


@dataclass(frozen=True, slots=True)
class AlignmentResult:
    """CLIP space against delta space on paired images and captions."""

    clip_space: Alignment
    delta_space: Alignment
    picture: bytes
    """PNG: both spaces by t-SNE, images and texts in two colours."""

    def as_dict(self) -> dict[str, object]:
        """Numbers only."""
        return {SPACES[0]: dict(self.clip_space), SPACES[1]: dict(self.delta_space)}


def align(image: np.ndarray, text: np.ndarray, *, num_points: int = 400) -> AlignmentResult:
    """Compare the two spaces on N paired rows.

    Differences are taken between each row and the next, for images and texts alike, so that row i
    of both describes the same change.

    Args:
        image: [N, C] float32 image embeddings.
        text: [N, C] float32 text embeddings of the same things.
        num_points: rows shown in the picture.
    """
    image, text = _units(image), _units(text)
    spaces = [(image, text), (_changes(image), _changes(text))]
    pictures = [
        scatter(
            tsne(i[:num_points], t[:num_points]),
            np.repeat([0, 1], [len(i[:num_points]), len(t[:num_points])]),
            title=name,
            labels=["images", "texts"],
        )
        for name, (i, t) in zip(SPACES, spaces, strict=True)
    ]
    original, delta = (alignment(i, t) for i, t in spaces)
    return AlignmentResult(original, delta, side_by_side(pictures))


def side_by_side(pngs: Sequence[bytes]) -> bytes:
    """PNG pictures of equal height, joined from left to right."""
    from pipeline.images import decode_image, encode_png

    return encode_png(np.concatenate([decode_image(png) for png in pngs], axis=1))


def _units(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def _changes(rows: np.ndarray) -> np.ndarray:
    return np.roll(rows, -1, axis=0) - rows
