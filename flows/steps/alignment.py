"""How CLIP space and delta space align: published features, or a store with captions."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from flows.steps.origin import load_stored_models
from flows.steps.output import write_config_beside, write_output
from pipeline.errors import PipelineError
from pipeline.evaluation import Alignment, alignment, tsne
from pipeline.images import decode_image, encode_png
from pipeline.plots import scatter
from pipeline.shapes import Floats
from stores.contents import is_store
from stores.errors import StoreError
from stores.places import StorePath
from stores.reader import StoreReader

ALIGNMENT_NAME = "alignment.png"
RESULT_NAME = "alignment.json"
"""After the name of what was compared and a hyphen, as the pictures are."""
SPACES = ("CLIP space", "delta space")
FEATURES = re.compile(r"cspace_(\w+)_i\.npy")
MIN_ROWS = 2
"""A difference has two rows."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AlignConfig:
    """One comparison."""

    source: Path
    """A folder of ``cspace_NAME_{i,t,deltai,deltat}.npy``, or a store."""
    captions: Path | None = None
    """For a store: JSON lines with ``key`` and ``caption``, such as an ``attributes.jsonl``."""
    out: Path | None = None
    """Folder for ``NAME-alignment.json`` and ``NAME-alignment.png``; default: none are made."""
    num_points: int = 1000
    """Rows of each modality that the pictures show."""

    def __post_init__(self) -> None:
        """Check what belongs together.

        Raises:
            ValueError: captions are missing or too many, or there are too few points.
        """
        wrong = []
        if is_store(self.source) != (self.captions is not None):
            wrong.append(f"captions: a store needs --captions, nothing else does ({self.source})")
        if self.num_points < MIN_ROWS:
            wrong.append(f"points: at least {MIN_ROWS}, got {self.num_points}")
        if wrong:
            raise ValueError("; ".join(wrong))


@dataclass(frozen=True, slots=True)
class AlignmentResult:
    """CLIP space against delta space on paired images and texts."""

    clip_space: Alignment
    delta_space: Alignment
    spaces: tuple[tuple[Floats, Floats], ...]
    """Per space the rows of images and of texts, each [N, C]."""

    def as_dict(self) -> dict[str, dict[str, float]]:
        """Numbers only."""
        return {SPACES[0]: self.clip_space._asdict(), SPACES[1]: self.delta_space._asdict()}

    def picture(self, num_points: int = 400) -> bytes:
        """PNG: both spaces by t-SNE, images and texts in two colours."""
        plots = [
            scatter(
                tsne(image[:num_points], text[:num_points]),
                np.repeat([0, 1], [len(image[:num_points]), len(text[:num_points])]),
                title=name,
                labels=["images", "texts"],
            )
            for name, (image, text) in zip(SPACES, self.spaces, strict=True)
        ]
        return _side_by_side(plots)


def align(image: np.ndarray, text: np.ndarray) -> AlignmentResult:
    """Compare the two spaces on N paired rows.

    Differences are taken between each row and the next, for images and texts alike, so that row i
    of both describes the same change. Neighbours with the same text, or the same image, describe
    none and are left out of delta space.

    Args:
        image: [N, C] float32 image embeddings.
        text: [N, C] float32 text embeddings of the same things.
    """
    image, text = _units(image), _units(text)
    changes = _changes(image), _changes(text)
    is_change = changes[0].any(axis=1) & changes[1].any(axis=1)
    return compare((image, text), (changes[0][is_change], changes[1][is_change]))


def compare(clip: tuple[Floats, Floats], delta: tuple[Floats, Floats]) -> AlignmentResult:
    """Compare rows of images and texts with rows of their differences, taken as they are."""
    return AlignmentResult(alignment(*clip), alignment(*delta), (clip, delta))


def align_source(config: AlignConfig) -> dict[str, AlignmentResult]:
    """Every comparison that the source allows, by name; written out where that is asked for.

    Raises:
        PipelineError: there are no features, or they are not paired.
        StoreError: the store has no clip column, no models, or too few captions.
    """
    if config.captions is not None:
        results = {config.source.stem: _align_store(config.source, config.captions)}
    else:
        results = _align_files(config.source)
    if config.out is not None:
        for name, result in results.items():
            picture = result.picture(config.num_points)
            write_output(config.out / f"{name}-{ALIGNMENT_NAME}", picture)
            document = json.dumps(as_table({name: result}), indent=2)
            write_output(config.out / f"{name}-{RESULT_NAME}", document.encode())
            write_config_beside(config.out / f"{name}-{RESULT_NAME}", config)
    return results


def as_table(results: dict[str, AlignmentResult]) -> dict[str, dict[str, float]]:
    """One line for each name and space."""
    return {
        f"{name}, {space}": {measure: round(value, 4) for measure, value in numbers.items()}
        for name, result in results.items()
        for space, numbers in result.as_dict().items()
    }


def _align_files(folder: Path) -> dict[str, AlignmentResult]:
    names = sorted(m[1] for path in folder.glob("*.npy") if (m := FEATURES.fullmatch(path.name)))
    if not names:
        raise PipelineError(
            f"{folder} is no store and has no cspace_NAME_i.npy; give a folder with "
            "cspace_NAME_{i,t}.npy and, where they exist, cspace_NAME_{deltai,deltat}.npy"
        )
    results = {}
    for name in names:
        image, text = (_load(folder / f"cspace_{name}_{kind}.npy") for kind in ("i", "t"))
        deltas = [folder / f"cspace_{name}_{kind}.npy" for kind in ("deltai", "deltat")]
        if deltas[0].exists():
            results[name] = compare((image, text), (_load(deltas[0]), _load(deltas[1])))
        else:
            results[name] = align(image, text)
    return results


def _align_store(store: StorePath, captions: Path) -> AlignmentResult:
    reader = StoreReader(store)
    if "clip" not in reader.schema.names:
        raise StoreError(f"{store} has no clip column; precompute it with --columns clip")
    rows_of = {key: row for row, key in enumerate(reader.keys)}
    said = {rows_of[key]: text for key, text in _captions(captions).items() if key in rows_of}
    if len(said) < MIN_ROWS:
        raise StoreError(
            f"{captions} has captions of {len(said)} of the {len(reader)} rows of {store}; at "
            f"least {MIN_ROWS} are needed. Are its keys the store's, such as {reader.keys[0]!r}?"
        )
    clip = load_stored_models(store).encoders.clip
    if clip is None:
        raise StoreError(f"{store} was made without CLIP: its captions cannot be embedded")
    texts = clip.encode_texts(list(said.values())).cpu().numpy()
    return align(reader.rows(list(said), ["clip"])["clip"], texts)


def _captions(path: Path) -> dict[str, str]:
    try:
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        return {str(line["key"]): str(line["caption"]) for line in lines}
    except (ValueError, KeyError, TypeError) as error:
        raise PipelineError(
            f"{path}: expected lines of JSON with key and caption; found {error!r}"
        ) from error


def _load(path: Path) -> Floats:
    try:
        return np.load(path, allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise PipelineError(f"{path} cannot be read as a .npy file: {error}") from error


def _side_by_side(pngs: Sequence[bytes]) -> bytes:
    """PNG pictures of equal height, joined from left to right."""
    return encode_png(np.concatenate([decode_image(png) for png in pngs], axis=1))


def _units(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def _changes(rows: np.ndarray) -> np.ndarray:
    return np.roll(rows, -1, axis=0) - rows
