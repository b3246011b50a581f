"""Measures of trained mappers and of the spaces that they work in."""

from pipeline.evaluation.alignment import Alignment, alignment, tsne
from pipeline.evaluation.fit import s_space_fit

__all__ = ["Alignment", "alignment", "s_space_fit", "tsne"]
