"""Columns of a store of encoded images: the contract between precompute and everything after."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from stores.schema import Column, Schema

if TYPE_CHECKING:  # torch takes seconds to import, and verifying a store needs none
    from pipeline.encoding import Encoders

DIRECTIONS = ("clip",)
"""Columns whose rows are directions: a row of length 0 would be damage."""


def store_schema(encoders: "Encoders", columns: Sequence[str]) -> Schema:
    """The schema of what `encoders` give: clip [C], w_plus [L, D], s [S], all float32."""
    shapes: dict[str, tuple[int, ...]] = {}
    if encoders.clip is not None:
        shapes["clip"] = (encoders.clip.dim,)
    if encoders.generator is not None:
        layout = encoders.generator.layout
        shapes["w_plus"] = (layout.num_w, encoders.generator.style_dim)
        shapes["s"] = (layout.total,)
    return Schema(tuple(Column(name, shapes[name], "float32") for name in columns))
