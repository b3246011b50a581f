"""Measures of trained mappers and of the spaces that they work in."""

from pipeline.evaluation.alignment import Alignment, alignment, tsne
from pipeline.evaluation.embedding_map import arrange
from pipeline.evaluation.fit import s_space_fit

__all__ = ["Alignment", "alignment", "arrange", "s_space_fit", "tsne"]
