"""Neighbours, pairs and what the Delta Mapper is told about them, from cached vectors alone."""

from pipeline.pairs.config import PairConfig, TextDirection
from pipeline.pairs.deltas import edit_conditions, pair_conditions
from pipeline.pairs.direction import AlignedTargets, aligned_targets
from pipeline.pairs.graph import NeighbourGraph, neighbour_graph, restrict_graph
from pipeline.pairs.index import (
    IndexKind,
    Recall,
    build_index,
    choose_kind,
    index_from_bytes,
    index_to_bytes,
    map_index,
    read_ahead,
    search,
    tune,
)
from pipeline.pairs.relevance import RelevanceConfig, regressed_relevance
from pipeline.pairs.sampling import PairSampler, sample_pairs

__all__ = [
    "AlignedTargets",
    "IndexKind",
    "NeighbourGraph",
    "PairConfig",
    "PairSampler",
    "Recall",
    "RelevanceConfig",
    "TextDirection",
    "aligned_targets",
    "build_index",
    "choose_kind",
    "edit_conditions",
    "index_from_bytes",
    "index_to_bytes",
    "map_index",
    "neighbour_graph",
    "pair_conditions",
    "read_ahead",
    "regressed_relevance",
    "restrict_graph",
    "sample_pairs",
    "search",
    "tune",
]
