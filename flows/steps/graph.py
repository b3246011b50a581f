"""The neighbour graph of a store, built in parts so that an interrupted run goes on."""

import numpy as np

from flows.steps.progress import Progress
from pipeline.pairs.graph import NeighbourGraph, join_graphs, neighbour_blocks
from stores.blobs import list_blobs, read_blob, remove_blob, write_blob
from stores.errors import StoreError
from stores.formats.hdf5 import pack_arrays, unpack_arrays
from stores.reader import StoreReader
from stores.store import Store

NEIGHBOURS = "neighbours.h5"
PART_PREFIX = "neighbours-from-"
PART_ROWS = 16_384
"""Rows kept at a time: what a killed run loses at most, a quarter of a minute on one core."""


def build_graph(reader: StoreReader, k: int, block_rows: int) -> None:
    """Find the `k` nearest others of every row and keep them as ``neighbours.h5``.

    What is already made from these rows is skipped; parts of an interrupted run are taken over.
    """
    store = Store.open(reader.path)
    made_from = {"store": reader.manifest.digest, "k": k}
    blobs = list_blobs(store)
    if NEIGHBOURS in blobs and blobs[NEIGHBOURS].made_from == made_from:
        return
    parts = _usable_parts(store, made_from)
    done = sum(len(part.ids) for part in parts)
    waiting: list[NeighbourGraph] = []
    with Progress("neighbours", len(reader), unit="rows") as progress:
        progress.advance(done)
        clip = reader.column("clip")
        for start, block in neighbour_blocks(clip, k, first_row=done, block_rows=block_rows):
            waiting.append(block)
            progress.advance(len(block.ids))
            stop = start + len(block.ids)
            if stop - done >= PART_ROWS and stop < len(reader):
                parts.append(join_graphs(waiting))
                write_blob(store, part_name(done), _packed(parts[-1]), made_from)
                waiting, done = [], stop
    write_blob(store, NEIGHBOURS, _packed(join_graphs([*parts, *waiting])), made_from)
    for name in list_blobs(store):
        if name.startswith(PART_PREFIX):
            remove_blob(store, name)


def load_graph(reader: StoreReader) -> NeighbourGraph:
    """The neighbour graph of a store.

    Raises:
        StoreError: there is none, or it was made before rows were added.
    """
    check_fresh(reader, NEIGHBOURS)
    return _unpacked(read_blob(Store.open(reader.path), NEIGHBOURS))


def check_fresh(reader: StoreReader, name: str) -> None:
    """Refuse a blob that is missing, or was made from other rows than the reader shows.

    Raises:
        StoreError: with the command that makes it.
    """
    blobs = list_blobs(Store.open(reader.path))
    if name not in blobs:
        raise StoreError(f"{reader.path} has no {name}; run: deltaedit index {reader.path}")
    if blobs[name].made_from["store"] != reader.manifest.digest:
        raise StoreError(
            f"{reader.path}: {name} was made before rows were added; "
            f"run: deltaedit index {reader.path}"
        )


def part_name(first_row: int) -> str:
    """The blob that holds the graph from row `first_row` on."""
    return f"{PART_PREFIX}{first_row:010d}.h5"


def _usable_parts(store: Store, made_from: dict[str, object]) -> list[NeighbourGraph]:
    """The parts that follow each other from row 0; those of other rows or another k are removed."""
    parts: list[NeighbourGraph] = []
    done = 0
    for name, blob in sorted(list_blobs(store).items()):
        if not name.startswith(PART_PREFIX):
            continue
        if name == part_name(done) and blob.made_from == made_from:
            parts.append(_unpacked(read_blob(store, name)))
            done += len(parts[-1].ids)
        else:
            remove_blob(store, name)
    return parts


def _packed(graph: NeighbourGraph) -> bytes:
    return pack_arrays({"row": graph.ids, "similarity": graph.similarities}, {"metric": "cosine"})


def _unpacked(data: bytes) -> NeighbourGraph:
    arrays, _attributes = unpack_arrays(data)
    return NeighbourGraph(
        arrays["row"].astype(np.int32, copy=False),
        arrays["similarity"].astype(np.float32, copy=False),
    )
