"""Columns of a store of encoded images: the contract between precompute and everything after."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from stores.scaling import Moments, Scaling
from stores.schema import Column, Schema

if TYPE_CHECKING:  # torch takes seconds to import, and verifying a store needs none
    from pipeline.encoding import Encoders

DIRECTIONS = ("clip",)
"""Columns whose rows are directions: a row of length 0 would be damage."""
DTYPES = ("float32", "float16")
SCALED_COLUMNS = ("w_plus", "s")
"""Columns that float16 stores keep z-scored. `clip` stays float32: it takes a thirtieth of a row,
and the difference of a near pair of embeddings would have an error of 0.7 %."""

_PILOT_ROWS = 1024
"""Samples of the generator that the means and scales are measured on."""


def store_schema(encoders: "Encoders", columns: Sequence[str], dtype: str = "float32") -> Schema:
    """The schema of what `encoders` give: clip [C], w_plus [L, D], s [S], all float32 in use.

    With float16, `SCALED_COLUMNS` are stored z-scored by the mean and deviation of the generator's
    own samples (truncation 1). These follow from the models alone: they are known before the first
    image is read, and stores made with the same models on one machine have the same.

    Args:
        encoders: The models that `columns` need.
        columns: Names out of clip, w_plus, s.
        dtype: One of `DTYPES`.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    if encoders.clip is not None:
        shapes["clip"] = (encoders.clip.dim,)
    if encoders.generator is not None:
        layout = encoders.generator.layout
        shapes["w_plus"] = (layout.num_w, encoders.generator.style_dim)
        shapes["s"] = (layout.total,)
    scaled = [name for name in columns if name in SCALED_COLUMNS and dtype == "float16"]
    scalings = _measure(encoders, scaled) if scaled else {}
    return Schema(
        tuple(
            Column(name, shapes[name], "float16", scalings[name])
            if name in scalings
            else Column(name, shapes[name], "float32")
            for name in columns
        )
    )


def _measure(encoders: "Encoders", columns: Sequence[str]) -> dict[str, Scaling]:
    from pipeline.encoding import encode_sampled

    scalings: dict[str, Scaling] = {}
    for name, rows in encode_sampled(0, range(_PILOT_ROWS), 1.0, encoders, columns).items():
        moments = Moments(rows.shape[1:])
        moments.add(rows)
        scalings[name] = moments.scaling()
    return scalings
