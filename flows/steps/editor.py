"""A mapper with the models that it works on, loaded once for any number of edits."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from flows.models import ModelOptions, load_models
from flows.steps.looking import StorePictures, render
from flows.steps.origin import stored_models
from flows.steps.published import choose_clip_pre
from flows.steps.reading import read_picture
from pipeline.editing import Direction, text_direction
from pipeline.encoding import encode_images
from pipeline.errors import CheckpointError
from pipeline.training import TrainedMapper
from stores.errors import StoreError
from stores.places import StorePath
from stores.reader import StoreReader

EDIT_COLUMNS = ("clip", "w_plus", "s")
_SHA256 = re.compile(r"sha256=([0-9a-f]{64})")


@dataclass(frozen=True, kw_only=True, slots=True)
class EditParts:
    """What an edit is made with, before any of the large models is loaded."""

    trained: TrainedMapper
    """The mapper."""
    options: ModelOptions
    """The models, with the mapper's CLIP pre-processing."""
    relevance: np.ndarray | None
    """[S, C] float32."""
    store: StorePath | None
    """The store whose rows may be edited."""
    for_images: bool
    """Whether image files will be encoded: the encoder is needed for nothing else."""


@dataclass(frozen=True, slots=True)
class Sources:
    """What is edited: codes and the pictures they came from."""

    names: list[str]
    originals: list[np.ndarray | None]
    """[H, W, 3] uint8; None where only codes are left."""
    codes: dict[str, np.ndarray]
    """Columns clip, w_plus and s."""


def edit_models(
    trained: TrainedMapper,
    store: StorePath | None,
    models: ModelOptions | None,
    clip_pre: str | None,
) -> ModelOptions:
    """The models of an edit: those given, else those that the store was made with.

    Raises:
        CheckpointError: the mapper was trained with another CLIP pre-processing.
        StoreError: the store was imported without models, and none are given.
    """
    pre = choose_clip_pre(trained.made_from, clip_pre)
    if models is None:
        assert store is not None, "a mapper without store comes with models"
        models = stored_models(store)
    return replace(models, clip_pre=pre, columns=EDIT_COLUMNS)


def open_rows(store: StorePath) -> StoreReader:
    """The rows of a store that can be edited.

    Raises:
        StoreError: it has not the columns that editing takes.
    """
    reader = StoreReader(store)
    missing = [name for name in EDIT_COLUMNS if name not in reader.schema.names]
    if missing:
        raise StoreError(
            f"{store} has no column {', '.join(missing)}, which editing takes; precompute "
            f"the images with --columns {','.join(EDIT_COLUMNS)}"
        )
    return reader


class Editor:
    """A mapper with its models, loaded once for any number of edits."""

    def __init__(self, parts: EditParts) -> None:
        """Load the models and compare them with the mapper.

        Raises:
            WeightsError: a model is missing, damaged, or of another architecture.
            CheckpointError: the mapper belongs to other models.
        """
        self.parts = parts
        self.trained = parts.trained
        self.relevance = parts.relevance
        self.models = load_models(parts.options, sampled=not parts.for_images, texts=True)
        clip, generator = self.models.encoders.clip, self.models.encoders.generator
        assert clip is not None
        assert generator is not None
        self.clip, self.generator = clip, generator
        self._check_widths()
        self._check_digest("clip", clip.name, clip.sha256)
        self._check_digest("s", "the generator", self.models.generator_sha256)

    def direction(self, text: str, neutral: str | None) -> Direction:
        """The text direction from the neutral word (default: the domain's) to `text`."""
        return text_direction(self.clip, text, neutral or self.models.neutral)

    def render(self, s: np.ndarray, w_plus: np.ndarray) -> np.ndarray:
        """Codes [N, S] and [N, L, D] -> pictures [N, size, size, 3] uint8."""
        return render(self.generator, s, w_plus)

    def gather(self, keys: Sequence[str], images: Sequence[Path]) -> Sources:
        """Codes of rows and of image files, in that order."""
        parts: list[dict[str, np.ndarray]] = []
        originals: list[np.ndarray | None] = []
        if keys:
            assert self.parts.store is not None, "keys come with a store"
            reader, pictures = open_rows(self.parts.store), StorePictures(self.parts.store)
            parts.append(reader.rows([reader.index_of(key) for key in keys], EDIT_COLUMNS))
            originals += [pictures.source(key) for key in keys]
        if images:
            pixels = [read_picture(path) for path in images]
            encoders = load_models(self.parts.options, texts=True).encoders
            parts.append(encode_images(pixels, encoders, EDIT_COLUMNS))
            originals += pixels
        codes = {name: np.concatenate([part[name] for part in parts]) for name in EDIT_COLUMNS}
        return Sources([*keys, *(path.name for path in images)], originals, codes)

    def _check_widths(self) -> None:
        config = self.trained.config
        if config.clip_dim != self.clip.dim:
            raise CheckpointError(
                f"the mapper takes CLIP embeddings of {config.clip_dim}, {self.clip.name} gives "
                f"{self.clip.dim}; give the CLIP model that it was trained with"
            )
        layout = self.generator.layout
        if config.s_dim != layout.total:
            raise CheckpointError(
                f"the mapper takes S of {config.s_dim} channels, the generator of "
                f"{self.generator.size} px has {layout.total}; give the generator that it was "
                "trained for"
            )

    def _check_digest(self, column: str, model: str, sha256: str | None) -> None:
        """Models of equal widths that the mapper has not seen give nonsense, not an error."""
        line = self.trained.made_from.get(column, "")
        digests = [] if line.startswith("imported") else _SHA256.findall(line)
        if digests and sha256 not in digests:
            raise CheckpointError(
                f"the mapper was trained on {column} of: {line}; {model} has sha256={sha256}. Give "
                "the models of the mapper's store"
            )
