"""The relevance matrix Rs of a store."""

import io
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from flows.config import as_jsonable
from flows.steps.output import write_output
from flows.steps.splits import train_rows
from pipeline.pairs import RelevanceConfig, regressed_relevance
from stores.blobs import list_blobs, read_blob, write_blob
from stores.errors import StoreError
from stores.formats.hdf5 import pack_arrays, unpack_arrays
from stores.places import StorePath
from stores.reader import StoreReader
from stores.store import Store

RELEVANCE = "relevance.h5"
METHODS = ("regressed",)


@dataclass(frozen=True, kw_only=True, slots=True)
class RelevanceRun:
    """How Rs is estimated."""

    store: StorePath
    """The store."""
    method: str = "regressed"
    """How: regressed is from cached vectors alone."""
    regression: RelevanceConfig = field(default_factory=RelevanceConfig)
    """The estimator's settings."""

    def __post_init__(self) -> None:
        """Check the method.

        Raises:
            ValueError: there is no such method.
        """
        if self.method not in METHODS:
            raise ValueError(f"method: {self.method!r} is none of {METHODS}")


def estimate_relevance(config: RelevanceRun) -> np.ndarray:
    """Rs [S, C] float32 from the training rows of a store, nothing rendered; kept as a blob.

    What is already made from these rows in this way is read, not made again.

    Raises:
        StoreError: the store has no clip or s column, or too few rows.
    """
    store, reader = Store.open(config.store), StoreReader(config.store)
    made_from = {
        "store": reader.manifest.digest,
        "method": config.method,
        "settings": as_jsonable(config.regression),
    }
    existing = list_blobs(store).get(RELEVANCE)
    if existing is not None and existing.made_from == made_from:
        return load_relevance(config.store, reader)
    data = reader.rows(train_rows(reader), ["clip", "s"])
    rs = regressed_relevance(data["clip"], data["s"], config.regression)
    write_blob(store, RELEVANCE, pack_arrays({"rs": rs}, {"method": config.method}), made_from)
    return rs


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
