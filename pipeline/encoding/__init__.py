"""Frozen models over batches: images or seeds -> rows of a store."""

from pipeline.encoding.encode import (
    COLUMNS,
    Encoders,
    Views,
    encode_images,
    encode_sampled,
    encode_views,
    image_views,
    sample_z,
)
from pipeline.encoding.stages import STAGES, StageClock

__all__ = [
    "COLUMNS",
    "STAGES",
    "Encoders",
    "StageClock",
    "Views",
    "encode_images",
    "encode_sampled",
    "encode_views",
    "image_views",
    "sample_z",
]
