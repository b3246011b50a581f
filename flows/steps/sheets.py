"""Contact sheets of neighbours and pairs, with keys and similarities."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from flows.steps.index import Neighbour
from flows.steps.looking import StorePictures
from flows.steps.output import write_output
from flows.steps.pairs import Pair
from pipeline.images import encode_png
from pipeline.pictures import label_grid
from stores.errors import StoreError
from stores.places import StorePath

PAIRS_PER_ROW = 4


def neighbour_sheet(
    store: StorePath, answers: Sequence[tuple[str, Sequence[Neighbour]]]
) -> np.ndarray:
    """One row per query: its nearest rows, each with key and similarity; uint8 [H, W, 3]."""
    pictures = StorePictures(store)
    return label_grid(
        [pictures.of_keys([n.key for n in found]) for _query, found in answers],
        row_labels=[query for query, _found in answers],
        column_labels=[str(rank + 1) for rank in range(max(len(f) for _q, f in answers))],
        captions=[[f"{n.similarity:.3f}  {n.key}" for n in found] for _query, found in answers],
    )


def pair_sheet(store: StorePath, pairs: Sequence[Pair]) -> np.ndarray:
    """Pairs side by side, source first, each with its similarity; uint8 [H, W, 3]."""
    pictures = StorePictures(store)
    rows, captions = [], []
    for begin in range(0, len(pairs), PAIRS_PER_ROW):
        group = pairs[begin : begin + PAIRS_PER_ROW]
        keys = [key for pair in group for key in (pair.source, pair.target)]
        rows.append(pictures.of_keys(keys))
        captions.append([text for pair in group for text in (pair.source, _measured(pair))])
    width = min(PAIRS_PER_ROW, len(pairs))
    return label_grid(
        rows,
        row_labels=[f"pairs {i * PAIRS_PER_ROW + 1}-" for i in range(len(rows))],
        column_labels=["source", "target"] * width,
        captions=captions,
    )


def store_sheet(store: StorePath, count: int = 8) -> np.ndarray:
    """Rows spread over a store, and below them what their codes give back; uint8 [H, W, 3].

    Raises:
        StoreError: the store has no rows, or neither its images nor its codes can be shown.
    """
    pictures = StorePictures(store)
    keys = pictures.reader.keys
    if not keys:
        raise StoreError(f"{store} has no rows to show")
    shown = [keys[row] for row in np.linspace(0, len(keys) - 1, min(count, len(keys))).astype(int)]
    rows = {"images": pictures.of_keys(shown)}
    if {"w_plus", "s"} <= set(pictures.reader.schema.names):
        rows["from codes"] = pictures.reconstruct(shown)
    return label_grid(list(rows.values()), row_labels=list(rows), column_labels=shown)


def _measured(pair: Pair) -> str:
    if pair.alignment is None:
        return f"{pair.similarity:.3f}  {pair.target}"
    return f"{pair.similarity:.3f}, along {pair.alignment:.2f}  {pair.target}"


def write_picture(path: Path, pixels: np.ndarray) -> None:
    """Write [H, W, 3] uint8 as PNG, whole or not at all."""
    write_output(path, encode_png(pixels))
