"""Vectors in other people's layouts: into a store, and out of one."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from flows.config import as_jsonable
from flows.models import CLIP_PRES, ModelOptions, load_models
from flows.steps.origin import Origin, keep_origin
from pipeline.errors import WeightsError
from pipeline.models.s_layout import layout_of_codes
from stores.exchange.embeddings import export_embeddings, import_embeddings
from stores.exchange.embeddings_files import find_embeddings
from stores.exchange.official import export_features, import_features
from stores.exchange.official_files import Features, find_features, mapped
from stores.manifest import Counts
from stores.places import StorePath
from stores.reader import StoreReader
from stores.store import Store

if TYPE_CHECKING:
    from pipeline.models.stylegan2 import Generator

log = logging.getLogger("deltaedit")

OFFICIAL = "official"
CLIP_RETRIEVAL = "clip-retrieval"
LAYOUTS = (OFFICIAL, CLIP_RETRIEVAL)
CODES = ("w_plus", "s")
FACE = "face"
"""The neutral word of the published vectors."""
PROBE_ROWS = 8
MAX_CODE_ERROR = 0.02
"""Of imported S against the generator's, relative: half precision costs 0.005, other weights are
off by their whole size."""
_OWN_GENERATOR = "give the generator that the codes were made with"


@dataclass(frozen=True, kw_only=True, slots=True)
class ImportConfig:
    """One import."""

    store: StorePath
    """The store's folder; created when absent, continued when there."""
    source: Path
    """Where the vectors are."""
    layout: str = OFFICIAL
    """How they lie there: official is DeltaEdit's ``cspace_*_feat.npy`` and so on, clip-retrieval
    a folder of embeddings and paths."""
    clip_pre: str = "box7"
    """CLIP image pre-processing that the embeddings were made with; box7 in all published ones."""
    models: ModelOptions | None = None
    """The models behind the vectors, for whatever encodes or renders later; S is compared with
    what their generator makes of W+."""
    neutral: str | None = None
    """The domain's neutral word for text directions; default: the models', else face."""
    shard_rows: int = 1024
    """Rows per shard: what a crash can cost at most."""
    split_eval: float = 0.1
    """Share of the keys held out for evaluation (0 to below 1), by hash of the key."""

    def __post_init__(self) -> None:
        """Check the values, all at once.

        Raises:
            ValueError: naming every field that is wrong.
        """
        wrong = []
        if self.layout not in LAYOUTS:
            wrong.append(f"layout: {self.layout!r} is none of {LAYOUTS}")
        if self.clip_pre not in CLIP_PRES:
            wrong.append(f"clip_pre: {self.clip_pre!r} is none of {CLIP_PRES}")
        if self.shard_rows < 1:
            wrong.append(f"shard_rows must be at least 1, got {self.shard_rows}")
        if not 0 <= self.split_eval < 1:
            wrong.append(f"split_eval must be in [0, 1), got {self.split_eval}")
        if wrong:
            raise ValueError("; ".join(wrong))


def import_vectors(
    config: ImportConfig, on_progress: Callable[[int, int], None] = lambda _done, _all: None
) -> Counts:
    """Bring a store up to date with the files of another layout.

    Args:
        config: the import.
        on_progress: called with the rows done and the rows of the files.

    Raises:
        SourceError: the files are missing, damaged, or do not belong together.
        ShapeError: S has no known layout.
        WeightsError: the codes are not those of the generator.
        FingerprintMismatchError: the store holds other vectors.
    """
    if config.layout == CLIP_RETRIEVAL:
        return _import_embeddings(config, on_progress)
    features = find_features(config.source)
    origin = find_origin(config, features)
    store = Store.open_or_create(
        config.store,
        schema=features.schema,
        fingerprints=features.fingerprints(pre=config.clip_pre),
        split_eval=config.split_eval,
    )
    keep_origin(store, _portable(config), origin)
    num_rows = sum(part.num_rows for part in features.sets)
    done = 0
    for entry in import_features(features, store, shard_rows=config.shard_rows):
        done += entry.inputs
        on_progress(done, num_rows)
    return store.manifest.counts


def preview(config: ImportConfig) -> dict[str, object]:
    """What an import would read, with every check that needs no whole file; errors of it."""
    features = find_features(config.source)
    find_origin(config, features)
    return {
        "rows": {part.name: part.num_rows for part in features.sets},
        "columns": {c.name: f"{list(c.shape)} {c.dtype}" for c in features.schema.columns},
    }


def _import_embeddings(config: ImportConfig, on_progress: Callable[[int, int], None]) -> Counts:
    found = find_embeddings(config.source)
    if found.left_out:
        log.warning("a store does not hold %s; left out", ", ".join(found.left_out))
    model = config.models.clip or config.models.models if config.models else None
    store = Store.open_or_create(
        config.store,
        schema=found.schema,
        fingerprints=found.fingerprints(model or "unknown model"),
        split_eval=config.split_eval,
    )
    keep_origin(store, _portable(config), Origin(s_widths=(), neutral=config.neutral or FACE))
    done = 0
    for entry in import_embeddings(found, store, shard_rows=config.shard_rows):
        done += entry.inputs
        on_progress(done, found.num_rows)
    return store.manifest.counts


def export_vectors(
    store: StorePath, folder: Path, *, layout: str = OFFICIAL, name: str, as_stored: bool = False
) -> list[Path]:
    """Write a store's vectors in another layout; the files that were made.

    Args:
        store: its folder.
        folder: where the files go.
        layout: one of `LAYOUTS`.
        name: of the set of rows, for official.
        as_stored: embeddings neither normalised nor rounded, for clip-retrieval.

    Raises:
        StoreError: there is nothing to export, or a file is in the way.
        ValueError: there is no such layout.
    """
    if layout not in LAYOUTS:
        raise ValueError(f"layout: {layout!r} is none of {LAYOUTS}")
    if layout == CLIP_RETRIEVAL:
        return export_embeddings(StoreReader(store), folder, as_stored=as_stored)
    return export_features(StoreReader(store), folder, name=name)


def find_origin(config: ImportConfig, features: Features) -> Origin:
    """The layout of S and the neutral word, by the models where they are given.

    Raises:
        ShapeError: no models are given, and no published generator has codes of these shapes.
        WeightsError: the codes are not those of the generator.
    """
    neutral = config.neutral
    shapes = {column.name: column.shape for column in features.schema.columns}
    codes = tuple(name for name in CODES if name in shapes)
    if not codes:
        return Origin(s_widths=(), neutral=neutral or FACE)
    if config.models is None:
        return Origin(s_widths=_published_widths(shapes), neutral=neutral or FACE)
    models = load_models(replace(config.models, columns=codes), sampled=True)
    generator = models.encoders.generator
    assert generator is not None, "codes are asked for"
    layout = generator.layout
    expected = {"w_plus": (layout.num_w, generator.style_dim), "s": (layout.total,)}
    for name in codes:
        if shapes[name] != expected[name]:
            raise WeightsError(
                f"{config.source}: column {name} is {list(shapes[name])}, the generator of "
                f"{generator.size} px has {list(expected[name])}; {_OWN_GENERATOR}"
            )
    if codes == CODES:
        _compare_codes(features, generator)
    return Origin(s_widths=tuple(layout.widths), neutral=neutral or models.neutral)


def _published_widths(shapes: Mapping[str, tuple[int, ...]]) -> tuple[int, ...]:
    if "s" not in shapes:
        return ()
    num_w = shapes["w_plus"][0] if "w_plus" in shapes else None
    return tuple(layout_of_codes(shapes["s"][0], num_w).widths)


def _compare_codes(features: Features, generator: "Generator") -> None:
    """S is an affine map of W+: the first rows tell whether it is this generator's."""
    from pipeline.models.stylegan2 import affine_error

    for part in features.sets:
        w_plus, s = (
            np.array(mapped(part.files[name], name)[:PROBE_ROWS], np.float32) for name in CODES
        )
        error = affine_error(generator, w_plus, s)
        if not error < MAX_CODE_ERROR:
            raise WeightsError(
                f"{part.files['s']}: S is {error:.1e} off what the generator makes of "
                f"{part.files['w_plus'].name}, up to {MAX_CODE_ERROR} is rounding; "
                f"{_OWN_GENERATOR}"
            )


def _portable(config: ImportConfig) -> dict[str, Any]:
    """The configuration with absolute paths, and the sources that every store names."""
    saved = replace(config, store=config.store.absolute(), source=config.source.absolute())
    return as_jsonable(saved) | {"sources": [str(saved.source)]}
