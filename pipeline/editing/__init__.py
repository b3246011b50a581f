"""Text-driven editing: prompts -> direction -> edited codes."""

from pipeline.editing.apply import (
    PUBLISHED_THRESHOLD,
    apply_change,
    edit_codes,
    relevance_mask,
)
from pipeline.editing.directions import Direction, class_embedding, text_direction
from pipeline.editing.templates import TEMPLATES

__all__ = [
    "PUBLISHED_THRESHOLD",
    "TEMPLATES",
    "Direction",
    "apply_change",
    "class_embedding",
    "edit_codes",
    "relevance_mask",
    "text_direction",
]
