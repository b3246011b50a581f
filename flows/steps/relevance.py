"""The relevance matrix Rs of a store."""

import io
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from pipeline.pairs import RelevanceConfig, regressed_relevance
from stores.atomic import write_atomic
from stores.blobs import read_blob, write_blob
from stores.errors import StoreError
from stores.formats.hdf5 import pack_arrays, unpack_arrays
from stores.reader import StoreReader
from stores.store import Store

RELEVANCE = "relevance.h5"


@dataclass(frozen=True, kw_only=True, slots=True)
class RelevanceRun:
    """How Rs is estimated."""

    store: Path
    """The store."""
    method: str = "regressed"
    """How: regressed is from cached vectors alone."""
    regression: RelevanceConfig = field(default_factory=RelevanceConfig)
    """The estimator's settings."""


def estimate_relevance(config: RelevanceRun) -> np.ndarray:
    """Rs [S, C] float32 from the training rows of a store, nothing rendered; kept as a blob."""
    reader = StoreReader(config.store)
    rows = np.flatnonzero(~reader.eval_mask)
    data = reader.rows(rows, ["clip", "s"])
    rs = regressed_relevance(data["clip"], data["s"], config.regression)
    made_from = {"store": reader.manifest.digest, "method": config.method}
    write_blob(Store.open(config.store), RELEVANCE, pack_arrays({"rs": rs}, {"method": config.method}), made_from)
    return rs


def write_npz(path: Path, rs: np.ndarray) -> None:
    """Write Rs as ``.npz`` with the key ``rs``, whole or not at all."""
    buffer = io.BytesIO()
    np.savez(buffer, rs=rs)
    write_atomic(path, buffer.getvalue())


def load_relevance(store: Path, reader: StoreReader) -> np.ndarray:
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
