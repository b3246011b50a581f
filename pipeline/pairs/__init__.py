"""Neighbours, pairs and what the Delta Mapper is told about them, from cached vectors alone."""

from pipeline.pairs.config import PairConfig, TextDirection
from pipeline.pairs.deltas import edit_conditions, pair_conditions
from pipeline.pairs.direction import AlignedTargets, aligned_targets
from pipeline.pairs.graph import NeighbourGraph, neighbour_graph, restrict_graph
from pipeline.pairs.index import build_index, index_from_bytes, index_to_bytes, search
from pipeline.pairs.relevance import RelevanceConfig, regressed_relevance
from pipeline.pairs.sampling import PairSampler, sample_pairs

__all__ = [
    "AlignedTargets",
    "NeighbourGraph",
    "PairConfig",
    "PairSampler",
    "RelevanceConfig",
    "TextDirection",
    "aligned_targets",
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
