"""Edit pictures by text: rows of a store or image files, as a labelled grid."""

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from flows.models import ModelOptions, find_files
from flows.steps.editor import Editor, EditParts, Sources, edit_models, open_rows
from flows.steps.looking import TILE
from flows.steps.output import write_output
from flows.steps.published import read_mapper, read_relevance
from flows.steps.relevance import RELEVANCE, load_relevance
from flows.steps.train import run_store
from pipeline.editing import Direction, relevance_mask
from pipeline.errors import PipelineError
from pipeline.images import encode_png, to_square
from pipeline.pictures import label_grid
from pipeline.training import MAPPER_NAME, load_trained
from stores.blobs import list_blobs
from stores.store import Store

METHODS = ("deltaedit",)
BLANK = np.full((TILE, TILE, 3), 255, dtype=np.uint8)
"""Stands for an original that is gone."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EditConfig:
    """One grid of edits."""

    run: Path | None = None
    """A finished training run: its mapper, the models of its store, and its relevance matrix."""
    mapper: Path | None = None
    """Instead of a run: a mapper's file, published (``net_face.pth``) or of a run."""
    relevance: Path | None = None
    """A relevance matrix's file (``fs3.npy``); default: that of the run's store, if it has one."""
    models: ModelOptions | None = None
    """The models to edit with; default: those of the run's store."""
    clip_pre: str | None = None
    """CLIP image pre-processing; default: the mapper's own, which is box7 for published files."""
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
        wrong = self._wrong_sources()
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

    def _wrong_sources(self) -> list[str]:
        wrong = []
        if (self.run is None) == (self.mapper is None):
            wrong.append("give either RUN or --mapper FILE")
        if self.run is None and self.keys:
            wrong.append("--key names a row of a run's store: give RUN, or --image")
        if self.run is None and self.models is None:
            wrong.append("--mapper needs models: name a set (--models ffhq) or the files")
        return wrong


@dataclass(frozen=True, slots=True)
class Edits:
    """The result: pictures [sources][original, reconstruction, edits...] and what was done."""

    names: list[str]
    """Of the sources: keys and file names."""
    grid: np.ndarray
    """The labelled picture, uint8."""
    pictures: list[np.ndarray]
    """Per text [N, H, W, 3] uint8 edited pictures."""
    reconstructions: np.ndarray
    """[N, H, W, 3] uint8."""
    table: list[dict[str, object]]
    """Per text: its neutral word, the length of the direction, how many channels were let through,
    and by which method and strength it was edited."""


def prepare_edit(config: EditConfig) -> EditParts:
    """Read the mapper and compare it with what else is named; the large models are not loaded.

    Raises:
        CheckpointError: there is no finished run, or its mapper had another CLIP pre-processing.
        StoreError: the run's store is gone, lacks a column, or has not one of the keys.
        WeightsError: a file is missing, damaged, or no mapper.
        ShapeError: the relevance matrix is of another shape than the mapper.
    """
    store = None if config.run is None else run_store(config.run)
    relevance = None
    if store is not None:
        reader = open_rows(store)
        for key in config.keys:
            reader.index_of(key)
        if config.relevance is None and RELEVANCE in list_blobs(Store.open(store)):
            relevance = load_relevance(store, reader)
    if config.mapper is not None:
        trained = read_mapper(config.mapper)
    else:
        assert config.run is not None, "checked above"
        trained = load_trained(config.run / MAPPER_NAME)
    if config.relevance is not None:
        shape = (trained.config.s_dim, trained.config.clip_dim)
        relevance = read_relevance(config.relevance, shape)
    options = edit_models(trained, store, config.models, config.clip_pre)
    find_files(options, sampled=not config.images)
    return EditParts(
        trained=trained,
        options=options,
        relevance=relevance,
        store=store,
        for_images=bool(config.images),
    )


def edit(config: EditConfig, editor: Editor | None = None) -> Edits:
    """Make every edit of `config`.

    Raises:
        PipelineError: a text, an image, a model or the mask cannot be used; the message says why.
        StoreError: a key is not in the store.
    """
    editor = editor or Editor(prepare_edit(config))
    directions = [editor.direction(text, config.neutral) for text in config.texts]
    masks = [choose_channels(editor, direction, config) for direction in directions]
    sources = editor.gather(config.keys, config.images)
    reconstructions = editor.render(sources.codes["s"], sources.codes["w_plus"])
    pictures, table = [], []
    for text, direction, mask in zip(config.texts, directions, masks, strict=True):
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
    grid = _grid(config, sources, reconstructions, pictures)
    return Edits(sources.names, grid, pictures, reconstructions, table)


def choose_channels(editor: Editor, direction: Direction, config: EditConfig) -> np.ndarray | None:
    """Channels that may change: [S] bool, or None for all.

    Raises:
        PipelineError: a mask is wanted and there is no relevance matrix.
    """
    if config.threshold is None and config.top_k is None:
        return None
    if editor.relevance is None:
        raise PipelineError(
            "--threshold and --top-k need a relevance matrix: give --relevance FILE"
            + ("" if config.run is None else f", or run: deltaedit relevance {editor.parts.store}")
        )
    return relevance_mask(
        editor.relevance,
        direction.raw.cpu().numpy(),
        threshold=config.threshold,
        top_k=config.top_k,
    )


def write_pictures(edits: Edits, texts: tuple[str, ...], folder: Path) -> list[Path]:
    """Write every reconstruction and edit as a PNG of its full size; the files."""
    columns = [("reconstruction", edits.reconstructions)]
    columns += list(zip(texts, edits.pictures, strict=True))
    files = []
    for row, name in enumerate(edits.names):
        for place, (text, pictures) in enumerate(columns):
            stem = f"{row + 1:03d}-{_word(Path(name).stem)}-{place}-{_word(text)}"
            files.append(folder / f"{stem}.png")
            write_output(files[-1], encode_png(pictures[row]))
    return files


def _word(text: str) -> str:
    """A text as a part of a file's name."""
    return re.sub(r"\W+", "-", text).strip("-")[:60]


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
