"""Frozen models over batches: images or seeds -> rows of a store."""

from pipeline.encoding.encode import COLUMNS, Encoders, encode_images, encode_sampled, sample_z

__all__ = ["COLUMNS", "Encoders", "encode_images", "encode_sampled", "sample_z"]
