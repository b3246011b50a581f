"""Source/target pairs of a store, drawn by a policy, as a table and as a contact sheet."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from flows.steps.index import load_graph, need_clip
from flows.steps.splits import train_rows
from pipeline.pairs import NeighbourGraph, PairConfig, sample_pairs
from stores.places import StorePath
from stores.reader import StoreReader


@dataclass(frozen=True, slots=True)
class Pair:
    """One drawn pair."""

    source: str
    target: str
    similarity: float
    """Cosine of the CLIP embeddings, -1..1."""


def draw_pairs(store: StorePath, config: PairConfig, count: int) -> list[Pair]:
    """Draw `count` pairs from the training split of a store; the same seed draws the same pairs.

    Raises:
        StoreError: there is no clip column, too few rows, or no neighbour graph for `nearest`.
        PairError: the policy cannot be satisfied on this store.
    """
    reader = StoreReader(store)
    need_clip(reader)
    rows = train_rows(reader)
    clip = reader.column("clip")
    graph = None
    if config.policy == "nearest":
        graph = NeighbourGraph(*load_graph(store, reader))
    source, target = sample_pairs(config, rows, count, clip=clip, neighbours=graph)
    unit = clip / np.linalg.norm(clip, axis=1, keepdims=True)
    similarity = np.einsum("nc,nc->n", unit[source], unit[target])
    keys = reader.keys
    return [
        Pair(str(keys[s]), str(keys[t]), float(cosine))
        for s, t, cosine in zip(source, target, similarity, strict=True)
    ]


def as_lines(pairs: Sequence[Pair]) -> str:
    """Tab-separated source, target, similarity, with a heading."""
    lines = ["source\ttarget\tsimilarity"]
    lines += [f"{pair.source}\t{pair.target}\t{pair.similarity:.6f}" for pair in pairs]
    return "\n".join(lines) + "\n"
