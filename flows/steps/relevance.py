"""The relevance matrix Rs of a store."""

import io
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from flows.config import as_jsonable
from flows.exits import stop_if_asked
from flows.steps.origin import load_stored_models
from flows.steps.output import write_output
from flows.steps.splits import train_rows
from pipeline.encoding.rendered_relevance import ChannelProbe, RenderedConfig, agreement
from pipeline.pairs import RelevanceConfig, regressed_relevance
from stores.blobs import list_blobs, read_blob, write_blob
from stores.errors import StoreError
from stores.formats.hdf5 import pack_arrays, unpack_arrays
from stores.places import StorePath
from stores.reader import StoreReader
from stores.store import Store

RELEVANCE = "relevance.h5"
LAYER = "relevance-layer-{index:02d}.h5"
"""One layer of a rendered matrix: what an interrupted run need not make again."""
METHODS = ("regressed", "rendered")


@dataclass(frozen=True, kw_only=True, slots=True)
class RelevanceRun:
    """How Rs is estimated."""

    store: StorePath
    """The store."""
    method: str = "regressed"
    """How: regressed is from cached vectors alone; rendered moves every channel and looks."""
    regression: RelevanceConfig = field(default_factory=RelevanceConfig)
    """The settings of regressed."""
    rendering: RenderedConfig = field(default_factory=RenderedConfig)
    """The settings of rendered."""

    def __post_init__(self) -> None:
        """Check the method.

        Raises:
            ValueError: there is no such method.
        """
        if self.method not in METHODS:
            raise ValueError(f"method: {self.method!r} is none of {METHODS}")


def estimate_relevance(
    config: RelevanceRun, on_progress: Callable[[int, int], None] = lambda _done, _all: None
) -> np.ndarray:
    """Rs [S, C] float32 from the training rows of a store; kept as the blob that editing uses.

    What is already made from these rows in this way is read, not made again; `rendered` is kept
    layer by layer, so that an interrupted run goes on with the layer it was at.

    Args:
        config: the store and the method.
        on_progress: called by `rendered` with the channels done and all channels.

    Raises:
        StoreError: the store lacks a column, or has too few rows.
        PipelineError: there are fewer rows than `rendered` is to look at.
    """
    store, reader = Store.open(config.store), StoreReader(config.store)
    settings = config.regression if config.method == "regressed" else config.rendering
    made_from: dict[str, Any] = {
        "store": reader.manifest.digest,
        "method": config.method,
        "settings": as_jsonable(settings),
    }
    existing = list_blobs(store).get(RELEVANCE)
    if existing is not None and existing.made_from == made_from:
        return load_relevance(config.store, reader)
    rows = train_rows(reader)
    data = reader.rows(rows, ["clip", "s"])
    rs = regressed_relevance(data["clip"], data["s"], config.regression)
    arrays = {"rs": rs}
    if config.method == "rendered":
        rendered = _render_relevance(config, store, rows, made_from, on_progress)
        arrays = {"rs": rendered, "agreement": agreement(rendered, rs)}
    write_blob(store, RELEVANCE, pack_arrays(arrays, {"method": config.method}), made_from)
    return arrays["rs"]


def _render_relevance(
    config: RelevanceRun,
    store: Store,
    rows: np.ndarray,
    made_from: dict[str, Any],
    on_progress: Callable[[int, int], None],
) -> np.ndarray:
    reader = StoreReader(config.store)
    encoders = load_stored_models(config.store).encoders
    if "w_plus" not in reader.schema.names or encoders.generator is None or encoders.clip is None:
        raise StoreError(
            f"{config.store}: rendering takes the columns clip, w_plus and s and their models; use "
            "--method regressed, or precompute with --columns clip,w_plus,s"
        )
    codes = reader.rows(rows, ["s"])["s"]
    chosen = reader.rows(rows[: config.rendering.num_images], ["s", "w_plus"])
    probe = ChannelProbe(
        encoders.generator,
        encoders.clip,
        **chosen,
        mean=codes.mean(axis=0, dtype=np.float64).astype(np.float32),
        std=codes.std(axis=0, dtype=np.float64).astype(np.float32),
        clip_pre=encoders.clip_pre,
        config=config.rendering,
    )
    parts: list[np.ndarray] = []
    layout = encoders.generator.layout
    for layer in layout.layers:
        name = LAYER.format(index=layer.index)
        existing = list_blobs(store).get(name)
        if existing is None or existing.made_from != made_from:
            data = pack_arrays({"rs": probe.layer(layer.index)}, {"layer": str(layer.index)})
            write_blob(store, name, data, made_from)
        parts.append(unpack_arrays(read_blob(store, name))[0]["rs"])
        stop_if_asked()
        on_progress(layer.columns.stop, layout.total)
    return np.concatenate(parts)


def read_agreement(store: StorePath) -> dict[str, float] | None:
    """How a rendered matrix agrees with the regressed one: cosine of a channel's two directions.

    Returns:
        Mean, median and quartiles over channels; None where the matrix was not rendered.
    """
    arrays = unpack_arrays(read_blob(Store.open(store), RELEVANCE))[0]
    if "agreement" not in arrays:
        return None
    values = arrays["agreement"]
    low, median, high = np.percentile(values, (25, 50, 75))
    names = {"mean": values.mean(), "median": median, "quartile 1": low, "quartile 3": high}
    return {name: round(float(value), 4) for name, value in names.items()}


def write_npz(path: Path, rs: np.ndarray) -> None:
    """Write Rs as ``.npz`` with the key ``rs``, whole or not at all."""
    buffer = io.BytesIO()
    np.savez(buffer, rs=rs)
    write_output(path, buffer.getvalue())


def load_relevance(store: StorePath, reader: StoreReader) -> np.ndarray:
    """Rs [S, C] float32 of a store.

    Raises:
        StoreError: there is none, or it does not fit the store's columns.
    """
    rs = unpack_arrays(read_blob(Store.open(store), RELEVANCE))[0]["rs"]
    widths = {column.name: column.shape for column in reader.schema.columns}
    expected = (*widths["s"], *widths["clip"])
    if rs.shape != expected:
        raise StoreError(
            f"{store}: {RELEVANCE} is {list(rs.shape)}, the columns s and clip ask for "
            f"{list(expected)}; run: deltaedit relevance {store}"
        )
    return rs
