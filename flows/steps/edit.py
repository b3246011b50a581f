"""Edit pictures by text: rows of a store or image files, as a labelled grid."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from flows.steps.looking import TILE, StorePictures, render
from flows.steps.origin import load_stored_models
from flows.steps.reading import read_picture
from flows.steps.relevance import RELEVANCE, load_relevance
from flows.steps.train import run_store
from pipeline.editing import Direction, edit_codes, relevance_mask, text_direction
from pipeline.encoding import encode_images
from pipeline.errors import PipelineError
from pipeline.images import to_square
from pipeline.pictures import label_grid
from pipeline.training import MAPPER_NAME, TrainedMapper, load_trained
from stores.blobs import list_blobs
from stores.errors import StoreError
from stores.reader import StoreReader
from stores.store import Store

EDIT_COLUMNS = ("clip", "w_plus", "s")
METHODS = ("deltaedit",)
BLANK = np.full((TILE, TILE, 3), 255, dtype=np.uint8)
"""Stands for an original that is gone."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EditConfig:
    """One grid of edits."""

    run: Path
    """A finished training run."""
    texts: tuple[str, ...]
    """Targets, such as "face with glasses"."""
    keys: tuple[str, ...] = ()
    """Rows of the run's store to edit."""
    images: tuple[Path, ...] = ()
    """Image files to edit."""
    neutral: str | None = None
    """The word that the targets differ from; default: the domain's."""
    strength: float = 1.0
    """Multiple of the predicted change; 1 as published."""
    threshold: float | None = None
    """Least relevance of a channel that may change, on the raw direction (published: 0.03)."""
    top_k: int | None = None
    """Instead of a threshold: how many channels may change."""
    method: str = "deltaedit"
    """How codes are edited; deltaedit is the Delta Mapper."""

    def __post_init__(self) -> None:
        """Check what must be there, all at once.

        Raises:
            ValueError: naming what is missing or contradictory.
        """
        wrong = []
        if not self.texts:
            wrong.append("texts: give at least one --text")
        if not self.keys and not self.images:
            wrong.append("give at least one --key or --image")
        if self.threshold is not None and self.top_k is not None:
            wrong.append("threshold and top_k exclude each other")
        if self.method not in METHODS:
            wrong.append(f"method: {self.method!r} is none of {METHODS}")
        if wrong:
            raise ValueError("; ".join(wrong))


@dataclass(frozen=True, slots=True)
class Sources:
    """What is edited: codes and the pictures they came from."""

    names: list[str]
    originals: list[np.ndarray | None]
    """[H, W, 3] uint8; None where only codes are left."""
    codes: dict[str, np.ndarray]
    """Columns clip, w_plus and s."""


@dataclass(frozen=True, slots=True)
class Edits:
    """The result: pictures [sources][original, reconstruction, edits...] and what was done."""

    grid: np.ndarray
    """The labelled picture, uint8."""
    pictures: list[np.ndarray]
    """Per text [N, H, W, 3] uint8 edited pictures."""
    reconstructions: np.ndarray
    """[N, H, W, 3] uint8."""
    table: list[dict[str, object]]
    """Per text: its neutral word, the length of the direction, how many channels were let through,
    and by which method and strength it was edited."""


class Editor:
    """A trained mapper with the models of its store, loaded once for any number of edits."""

    def __init__(self, run: Path) -> None:
        """Load what the run and its store name.

        Raises:
            CheckpointError: there is no finished run.
            StoreError: its store is gone, or has not the columns that editing takes.
        """
        self.store = run_store(run)
        self.reader = StoreReader(self.store)
        missing = [name for name in EDIT_COLUMNS if name not in self.reader.schema.names]
        if missing:
            raise StoreError(
                f"{self.store} has no column {', '.join(missing)}, which editing takes; precompute "
                f"the images with --columns {','.join(EDIT_COLUMNS)}"
            )
        self.models = load_stored_models(self.store)
        self.trained: TrainedMapper = load_trained(run / MAPPER_NAME)
        has_relevance = RELEVANCE in list_blobs(Store.open(self.store))
        self.relevance = load_relevance(self.store, self.reader) if has_relevance else None

    def direction(self, text: str, neutral: str | None) -> Direction:
        """The text direction from the neutral word (default: the domain's) to `text`."""
        clip = self.models.encoders.clip
        assert clip is not None, "the store has a clip column"
        return text_direction(clip, text, neutral or self.models.neutral)

    def render(self, s: np.ndarray, w_plus: np.ndarray) -> np.ndarray:
        """Codes [N, S] and [N, L, D] -> pictures [N, size, size, 3] uint8."""
        generator = self.models.encoders.generator
        assert generator is not None, "the store has a column s"
        return render(generator, s, w_plus)

    def mask(self, direction: Direction, config: EditConfig) -> np.ndarray | None:
        """Channels that may change: [S] bool, or None for all.

        Raises:
            PipelineError: a mask is wanted and the store has no relevance matrix.
        """
        if config.threshold is None and config.top_k is None:
            return None
        if self.relevance is None:
            raise PipelineError(
                f"--threshold and --top-k need the relevance matrix of {self.store}; run: "
                f"deltaedit relevance {self.store} --method regressed"
            )
        return relevance_mask(
            self.relevance,
            direction.raw.cpu().numpy(),
            threshold=config.threshold,
            top_k=config.top_k,
        )

    def gather(self, keys: Sequence[str], images: Sequence[Path]) -> Sources:
        """Codes of rows and of image files, in that order."""
        parts: list[dict[str, np.ndarray]] = []
        pictures = StorePictures(self.store)
        originals = [pictures.source(key) for key in keys]
        if keys:
            rows = [self.reader.index_of(key) for key in keys]
            parts.append(self.reader.rows(rows, EDIT_COLUMNS))
        if images:
            pixels = [read_picture(path) for path in images]
            encoders = load_stored_models(self.store, for_images=True).encoders
            parts.append(encode_images(pixels, encoders, EDIT_COLUMNS))
            originals += pixels
        codes = {name: np.concatenate([part[name] for part in parts]) for name in EDIT_COLUMNS}
        return Sources([*keys, *(path.name for path in images)], originals, codes)

    def apply(
        self, sources: Sources, direction: Direction, strength: float, mask: np.ndarray | None
    ) -> np.ndarray:
        """Edited pictures of the sources, [N, H, W, 3] uint8."""
        codes = sources.codes
        edited = edit_codes(
            self.trained, codes["s"], codes["clip"], direction.unit, strength=strength, mask=mask
        )
        return self.render(edited.cpu().numpy(), codes["w_plus"])


def check_edit(config: EditConfig) -> None:
    """Look at what can be looked at without loading a model.

    Raises:
        CheckpointError: there is no finished run.
        StoreError: a key is not in the run's store.
    """
    reader = StoreReader(run_store(config.run))
    for key in config.keys:
        reader.index_of(key)


def edit(config: EditConfig, editor: Editor | None = None) -> Edits:
    """Make every edit of `config`.

    Raises:
        PipelineError: a text, an image or the mask cannot be used; the message says why.
        StoreError: a key is not in the store.
    """
    editor = editor or Editor(config.run)
    sources = editor.gather(config.keys, config.images)
    reconstructions = editor.render(sources.codes["s"], sources.codes["w_plus"])
    pictures, table = [], []
    for text in config.texts:
        direction = editor.direction(text, config.neutral)
        mask = editor.mask(direction, config)
        pictures.append(editor.apply(sources, direction, config.strength, mask))
        table.append(
            {
                "text": text,
                "neutral": direction.neutral,
                "direction": round(direction.norm, 4),
                "channels": sources.codes["s"].shape[1] if mask is None else int(mask.sum()),
                "method": config.method,
                "strength": config.strength,
            }
        )
    return Edits(
        _grid(config, sources, reconstructions, pictures), pictures, reconstructions, table
    )


def _grid(
    config: EditConfig,
    sources: Sources,
    reconstructions: np.ndarray,
    pictures: list[np.ndarray],
) -> np.ndarray:
    with_originals = any(original is not None for original in sources.originals)
    rows = []
    for number, original in enumerate(sources.originals):
        row = [reconstructions[number], *(edited[number] for edited in pictures)]
        if with_originals:
            row.insert(0, BLANK if original is None else original)
        rows.append([to_square(picture, TILE) for picture in row])
    heads = ["original"] if with_originals else []
    return label_grid(
        rows,
        row_labels=sources.names,
        column_labels=[*heads, "reconstruction", *config.texts],
    )
