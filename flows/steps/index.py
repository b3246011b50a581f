"""Index a store: FAISS index and neighbour graph as blobs; queries by key, image or text.

Models and torch are imported where images and texts are asked for: a key is answered without.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import numpy as np

from flows.steps.graph import build_graph, check_fresh
from pipeline.errors import PairError, PipelineError
from pipeline.pairs.index import (
    IndexKind,
    add_rows,
    bytes_per_row,
    choose_kind,
    empty_index,
    index_from_bytes,
    index_to_bytes,
    map_index,
    read_ahead,
    search,
    tune,
)
from stores.blobs import blob_path, list_blobs, read_blob, write_blob
from stores.errors import StoreError
from stores.places import StorePath
from stores.reader import StoreReader
from stores.store import Store

if TYPE_CHECKING:
    pass

INDEX = "index.faiss"
KINDS = ("auto", *get_args(IndexKind))
MAX_GROWTH = 2.0
"""An index that learnt its cells from this many times fewer rows is built anew."""


@dataclass(frozen=True, kw_only=True, slots=True)
class IndexConfig:
    """How a store is indexed."""

    store: StorePath
    """The store."""
    kind: str = "auto"
    """auto, or one of `pipeline.pairs.index.KINDS`; auto takes the most exact one that suits the
    number of rows and fits the memory budget."""
    memory_budget: int | None = None
    """Bytes that the index may take; None for as much as it likes."""
    recall: float = 0.99
    """Recall at 10 to reach on a sample of the store, where the kind is not exact."""
    neighbours: int = 64
    """k: neighbours kept per row (0: index only)."""
    block_rows: int = 1024
    """Rows compared at once by each thread; bounds the memory of the neighbour graph."""

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
        if not 0.0 < self.recall <= 1.0:
            wrong.append(f"recall is {self.recall}: above 0, at most 1")
        if self.memory_budget is not None and self.memory_budget < 1:
            wrong.append(f"memory_budget is {self.memory_budget} bytes: at least 1")
        if wrong:
            raise ValueError("; ".join(wrong))

    def resolved_kind(self, num_rows: int, width: int) -> IndexKind:
        """The kind that is built for `num_rows` rows of `width` numbers.

        Raises:
            PairError: it does not fit the memory budget.
        """
        kind = next((known for known in get_args(IndexKind) if known == self.kind), None)
        if kind is None:
            return choose_kind(num_rows, width, self.memory_budget)
        needed = num_rows * bytes_per_row(kind, width)
        if self.memory_budget is not None and needed > self.memory_budget:
            raise PairError(
                f"{num_rows} rows in kind {kind} take {needed:,} bytes, the memory budget is "
                f"{self.memory_budget:,}: raise it, or take --kind auto"
            )
        return kind


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
        PairError: the index does not fit the memory budget.
    """
    reader = StoreReader(config.store)
    need_clip(reader)
    made_from = _build_index(config, reader)
    result: dict[str, object] = {"rows": len(reader), "kind": made_from["kind"]}
    result[f"recall@{made_from['recall_k']}"] = round(made_from["recall"], 4)
    result["effort"] = made_from["effort"]
    if config.neighbours:
        result["neighbours"] = k = min(config.neighbours, len(reader) - 1)
        build_graph(reader, k, config.block_rows)
    return result


def _build_index(config: IndexConfig, reader: StoreReader) -> dict[str, Any]:
    """Build or grow the index; what it was made from, and what recall it reaches."""
    store = Store.open(config.store)
    kind = config.resolved_kind(len(reader), reader.schema["clip"].shape[0])
    wanted = {"store": reader.manifest.digest, "kind": kind, "recall_target": config.recall}
    blobs = list_blobs(store)
    former = dict(blobs[INDEX].made_from) if INDEX in blobs else {}
    if former | wanted == former and "recall" in former:
        return former
    clip = reader.column("clip")
    if _can_grow(former, reader, kind):
        index, trained_rows = index_from_bytes(read_blob(store, INDEX)), former["trained_rows"]
    else:
        index, trained_rows = empty_index(kind, clip), len(clip)
    add_rows(index, clip[index.ntotal :])
    measured = tune(index, clip, target=config.recall)
    made_from = wanted | {
        "trained_rows": trained_rows,
        "shards": len(reader.manifest.shards),
        "shards_sha256": _shards_digest(reader, len(reader.manifest.shards)),
        "recall": measured.recall,
        "recall_k": measured.k,
        "recall_queries": measured.num_queries,
        "effort": measured.effort,
    }
    write_blob(store, INDEX, index_to_bytes(index), made_from)
    return made_from


def _can_grow(former: dict[str, Any], reader: StoreReader, kind: IndexKind) -> bool:
    """Whether an index holds the first rows of the store, in order, and is still fit for all."""
    return (
        former.get("kind") == kind
        and "shards_sha256" in former
        and former["shards_sha256"] == _shards_digest(reader, former["shards"])
        and len(reader) <= MAX_GROWTH * former["trained_rows"]
    )


def _shards_digest(reader: StoreReader, num_shards: int) -> str:
    """What the first shards are: two stores that agree on it begin with the same rows."""
    entries = list(reader.manifest.shards.values())[:num_shards]
    lines = [f"{entry.number} {entry.sha256}\n" for entry in entries]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def find_neighbours(store: StorePath, query: np.ndarray, k: int) -> list[Neighbour]:
    """The `k` rows whose CLIP embeddings are most similar to `query` [C]."""
    reader = StoreReader(store)
    check_fresh(reader, INDEX)
    index = map_index(blob_path(Store.open(store), INDEX))
    read_ahead(index, query.astype(np.float32))
    similarities, rows = search(index, query[None].astype(np.float32), min(k, len(reader)))
    found = rows[0] >= 0  # an index that is not exact may find fewer
    rows, similarities = rows[0][found], similarities[0][found]
    return [
        Neighbour(key, int(row), float(similarity))
        for key, row, similarity in zip(reader.keys_of(rows), rows, similarities, strict=True)
    ]


def query_vector(
    store: StorePath, *, key: str | None = None, image: Path | None = None, text: str | None = None
) -> np.ndarray:
    """The CLIP embedding [C] of a key of the store, an image file or a text.

    Images and texts go through the models that the store was made with.
    """
    if key is not None:
        reader = StoreReader(store)
        return reader.rows([reader.index_of(key)], ["clip"])["clip"][0]
    from flows.steps.origin import load_stored_models

    if image is not None:
        from flows.steps.reading import read_picture
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
