"""Source/target pairs of a store, drawn by a policy, as a table and as a contact sheet."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from flows.steps.graph import load_graph
from flows.steps.index import need_clip
from flows.steps.splits import train_rows
from pipeline.pairs import NeighbourGraph, PairConfig, sample_pairs
from pipeline.pairs.rows import unit_rows
from stores.places import StorePath
from stores.reader import StoreReader


@dataclass(frozen=True, slots=True)
class Pair:
    """One drawn pair."""

    source: str
    target: str
    similarity: float
    """Cosine of the CLIP embeddings, -1..1."""
    alignment: float | None = None
    """Cosine of the CLIP difference and the text direction, -1..1; where there is a direction."""


def draw_pairs(store: StorePath, config: PairConfig, count: int) -> list[Pair]:
    """Draw `count` pairs from the training split of a store; the same seed draws the same pairs.

    Raises:
        StoreError: there is no clip column, too few rows, or no neighbour graph where the policy
            needs one.
        PairError: the policy cannot be satisfied on this store.
    """
    reader = StoreReader(store)
    need_clip(reader)
    rows = train_rows(reader)
    source, target = sample_pairs(
        config,
        rows,
        count,
        clip=reader.column("clip") if config.needs_clip else None,
        neighbours=graph_for(reader, config, len(rows)),
    )
    units = [unit_rows(reader.rows(ends, ["clip"])["clip"]) for ends in (source, target)]
    alignments = _alignments(config, *units)
    keys = reader.keys
    return [
        Pair(keys[s], keys[t], float(cosine), alignment)
        for s, t, cosine, alignment in zip(
            source, target, np.vecdot(*units), alignments, strict=True
        )
    ]


def graph_for(reader: StoreReader, config: PairConfig, num_rows: int) -> NeighbourGraph | None:
    """The store's neighbour graph, if drawing among `num_rows` of its rows takes one.

    Raises:
        StoreError: it takes one, and there is none, or one made before rows were added.
    """
    return load_graph(reader) if config.needs_graph(num_rows) else None


def as_lines(pairs: Sequence[Pair]) -> str:
    """Tab-separated source, target, similarity and, if there is a direction, alignment."""
    aligned = any(pair.alignment is not None for pair in pairs)
    lines = ["source\ttarget\tsimilarity" + "\talignment" * aligned]
    lines += [
        f"{pair.source}\t{pair.target}\t{pair.similarity:.6f}"
        + (f"\t{pair.alignment:.6f}" if aligned else "")
        for pair in pairs
    ]
    return "\n".join(lines) + "\n"


def _alignments(
    config: PairConfig, source: np.ndarray, target: np.ndarray
) -> list[float] | list[None]:
    if config.direction is None:
        return [None] * len(source)
    difference = target - source
    lengths = np.maximum(np.linalg.norm(difference, axis=1), np.finfo(np.float32).tiny)
    return (difference @ config.direction.unit / lengths).tolist()
