"""Text-driven editing: prompts -> direction -> edited codes."""

from pipeline.editing.apply import PUBLISHED_THRESHOLD, edit_codes, relevance_mask
from pipeline.editing.directions import Direction, class_embedding, text_direction
from pipeline.editing.templates import TEMPLATES

__all__ = [
    "PUBLISHED_THRESHOLD",
    "TEMPLATES",
    "Direction",
    "class_embedding",
    "edit_codes",
    "relevance_mask",
    "text_direction",
]
