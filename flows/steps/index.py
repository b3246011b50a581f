"""Index a store: FAISS index and neighbour graph as blobs; queries by key, image or text."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from flows.steps.origin import load_stored_models
from flows.steps.reading import read_picture
from pipeline.errors import PipelineError
from pipeline.pairs import (
    NeighbourGraph,
    build_index,
    index_from_bytes,
    index_to_bytes,
    neighbour_graph,
    search,
)
from stores.blobs import list_blobs, read_blob, write_blob
from stores.errors import StoreError
from stores.formats.hdf5 import pack_arrays, unpack_arrays
from stores.reader import StoreReader
from stores.store import Store

INDEX = "index.faiss"
NEIGHBOURS = "neighbours.h5"
FLAT = "flat"
KINDS = ("auto", FLAT)


@dataclass(frozen=True, kw_only=True, slots=True)
class IndexConfig:
    """How a store is indexed."""

    store: Path
    """The store."""
    kind: str = "auto"
    """auto or flat; auto is flat (exact)."""
    neighbours: int = 64
    """k: neighbours kept per row (0: index only)."""
    block_rows: int = 4096
    """Rows compared at once; bounds the memory of the neighbour graph."""

    def __post_init__(self) -> None:
        """Check the values, all at once.

        Raises:
            ValueError: naming every field that is wrong.
        """
        wrong = []
        if self.kind not in KINDS:
            wrong.append(f"kind: {self.kind!r} is none of {KINDS}")
        if self.neighbours < 0 or self.block_rows < 1:
            wrong.append(
                f"neighbours is {self.neighbours} and block_rows {self.block_rows}: 0 or more, and "
                "1 or more"
            )
        if wrong:
            raise ValueError("; ".join(wrong))

    @property
    def resolved_kind(self) -> str:
        """The kind that is built: `auto` is exact search."""
        return FLAT if self.kind == "auto" else self.kind


@dataclass(frozen=True, slots=True)
class Neighbour:
    """One answer of a query."""

    key: str
    row: int
    similarity: float
    """Cosine of the CLIP embeddings, -1..1."""


def index_store(config: IndexConfig) -> dict[str, object]:
    """Build ``index.faiss`` and ``neighbours.h5``; skips what is already made from these rows.

    Raises:
        StoreError: the store has no clip column or too few rows.
    """
    store = Store.open(config.store)
    reader = StoreReader(config.store)
    need_clip(reader)
    existing = {name: blob.made_from for name, blob in list_blobs(store).items()}
    made_from = {"store": reader.manifest.digest, "kind": config.resolved_kind}
    clip = reader.column("clip")
    result: dict[str, object] = {"rows": len(reader), "kind": config.resolved_kind}
    if existing.get(INDEX) != made_from:
        write_blob(store, INDEX, index_to_bytes(build_index(clip)), made_from)
    if config.neighbours:
        k = min(config.neighbours, len(reader) - 1)
        result["neighbours"] = k
        graph_from = {"store": reader.manifest.digest, "k": k}
        if existing.get(NEIGHBOURS) != graph_from:
            rows, similarities = neighbour_graph(clip, k, block_rows=config.block_rows)
            packed = pack_arrays({"row": rows, "similarity": similarities}, {"metric": "cosine"})
            write_blob(store, NEIGHBOURS, packed, graph_from)
    return result


def load_graph(reader: StoreReader) -> NeighbourGraph:
    """The neighbour graph of a store.

    Raises:
        StoreError: there is none, or it was made before rows were added.
    """
    _check_fresh(reader.path, reader, NEIGHBOURS)
    arrays, _attributes = unpack_arrays(read_blob(Store.open(reader.path), NEIGHBOURS))
    return NeighbourGraph(arrays["row"], arrays["similarity"])


def find_neighbours(store: Path, query: np.ndarray, k: int) -> list[Neighbour]:
    """The `k` rows whose CLIP embeddings are most similar to `query` [C]."""
    reader = StoreReader(store)
    _check_fresh(store, reader, INDEX)
    index = index_from_bytes(read_blob(Store.open(store), INDEX))
    similarities, rows = search(index, query[None].astype(np.float32), min(k, len(reader)))
    keys = reader.keys
    return [
        Neighbour(str(keys[row]), int(row), float(similarity))
        for row, similarity in zip(rows[0], similarities[0], strict=True)
    ]


def query_vector(
    store: Path, *, key: str | None = None, image: Path | None = None, text: str | None = None
) -> np.ndarray:
    """The CLIP embedding [C] of a key of the store, an image file or a text.

    Images and texts go through the models that the store was made with.
    """
    if key is not None:
        reader = StoreReader(store)
        return reader.rows([reader.index_of(key)], ["clip"])["clip"][0]
    if image is not None:
        from pipeline.encoding import encode_images

        encoders = load_stored_models(store, for_images=True).encoders
        return encode_images([read_picture(image)], encoders, ("clip",))["clip"][0]
    if text is None:
        raise PipelineError("a query needs a key, an image or a text")
    from pipeline.editing import class_embedding

    clip = load_stored_models(store).encoders.clip
    if clip is None:
        raise PipelineError(f"{store} was made without CLIP: it has no texts to compare with")
    return class_embedding(clip, text).cpu().numpy()


def need_clip(reader: StoreReader) -> None:
    """Refuse a store that has nothing to index.

    Raises:
        StoreError: it has no clip column, or fewer than two rows.
    """
    if "clip" not in reader.schema.names:
        raise StoreError(
            f"{reader.path} has no clip column (it has {', '.join(reader.schema.names)}); "
            "precompute it with --columns clip,..."
        )
    if len(reader) < 2:  # noqa: PLR2004 - a pair needs two
        raise StoreError(f"{reader.path} has {len(reader)} rows; an index needs at least 2")


def _check_fresh(store: Path, reader: StoreReader, name: str) -> None:
    blobs = list_blobs(Store.open(store))
    if name not in blobs:
        raise StoreError(f"{store} has no {name}; run: deltaedit index {store}")
    if blobs[name].made_from["store"] != reader.manifest.digest:
        raise StoreError(
            f"{store}: {name} was made before rows were added; run: deltaedit index {store}"
        )
