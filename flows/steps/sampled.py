"""Sources that are drawn by the generator: ``sampled:COUNT[?seed=S&truncation=PSI]``."""

import math
from dataclasses import dataclass
from urllib.parse import parse_qs

from stores.errors import SourceError

SAMPLED = "sampled:"
"""How a source of generated images begins."""


@dataclass(frozen=True, slots=True)
class SampledSource:
    """A parsed ``sampled:`` source."""

    count: int
    """Images to draw."""
    seed: int = 0
    """Image i of a seed is the same whatever `count` is."""
    truncation: float = 1.0
    """psi: 1 for none, towards 0 for the average image."""


def parse_sampled(source: str) -> SampledSource:
    """``sampled:COUNT[?seed=S&truncation=PSI]``.

    Raises:
        SourceError: the text does not follow that form.
    """
    try:
        return _parse(source)
    except ValueError as error:
        raise SourceError(
            "bad_source",
            f"{source!r}: {error}; the form is sampled:COUNT[?seed=S&truncation=PSI], for example "
            "sampled:200000?seed=0&truncation=1",
        ) from error


def _parse(source: str) -> SampledSource:
    count, _, query = source.removeprefix(SAMPLED).partition("?")
    options = parse_qs(query, keep_blank_values=True, strict_parsing=bool(query))
    unknown = sorted(options.keys() - {"seed", "truncation"})
    if unknown:
        raise ValueError(f"unknown option {', '.join(unknown)}")
    parsed = SampledSource(
        int(count),
        int(options.get("seed", ["0"])[-1]),
        float(options.get("truncation", ["1.0"])[-1]),
    )
    if parsed.count < 1:
        raise ValueError("COUNT must be at least 1")
    if not math.isfinite(parsed.truncation):
        raise ValueError("truncation must be a finite number")
    return parsed
