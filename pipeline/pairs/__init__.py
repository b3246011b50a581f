"""Neighbours, pairs and what the Delta Mapper is told about them, from cached vectors alone."""

from pipeline.pairs.deltas import edit_conditions, pair_conditions
from pipeline.pairs.index import (
    NeighbourGraph,
    build_index,
    index_from_bytes,
    index_to_bytes,
    neighbour_graph,
    restrict_graph,
    search,
)
from pipeline.pairs.relevance import RelevanceConfig, regressed_relevance
from pipeline.pairs.sampling import PairConfig, PairSampler, sample_pairs

__all__ = [
    "NeighbourGraph",
    "PairConfig",
    "PairSampler",
    "RelevanceConfig",
    "build_index",
    "edit_conditions",
    "index_from_bytes",
    "index_to_bytes",
    "neighbour_graph",
    "pair_conditions",
    "regressed_relevance",
    "restrict_graph",
    "sample_pairs",
    "search",
]
