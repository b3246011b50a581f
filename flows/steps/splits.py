"""The two splits of a store, refused with advice where they are too small to pair."""

import numpy as np

from stores.errors import StoreError
from stores.reader import StoreReader

MIN_ROWS = 2
"""A pair has two rows."""


def train_rows(reader: StoreReader) -> np.ndarray:
    """Row numbers to learn from, [N] int64.

    Raises:
        StoreError: there are fewer than two.
    """
    return _split(reader, ~reader.eval_mask, "are left to train on")


def eval_rows(reader: StoreReader) -> np.ndarray:
    """Held-out row numbers, [N] int64.

    Raises:
        StoreError: there are fewer than two.
    """
    return _split(reader, reader.eval_mask, "are held out")


def _split(reader: StoreReader, mask: np.ndarray, fate: str) -> np.ndarray:
    rows = np.flatnonzero(mask)
    if len(rows) < MIN_ROWS:
        raise StoreError(
            f"{reader.path}: {len(rows)} of {len(reader)} rows {fate} with --split-eval "
            f"{reader.manifest.header.eval_fraction}; at least {MIN_ROWS} are needed to form "
            "pairs. Precompute more images, or make another store with another --split-eval"
        )
    return rows
