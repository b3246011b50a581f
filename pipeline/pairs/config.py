"""How pairs are drawn: policies, mixtures of them, bounds, and the text direction they follow."""

import base64
import binascii
from dataclasses import dataclass
from typing import Literal, Self, get_args

import numpy as np

from pipeline.errors import PairError
from pipeline.shapes import Floats, assert_shape

Policy = Literal["random", "nearest", "band", "direction"]
POLICIES: tuple[Policy, ...] = get_args(Policy)
_NAMED: dict[str, Policy] = {policy: policy for policy in POLICIES}

EXACT_DIRECTION_ROWS = 20_000
"""Up to this many rows `direction` compares every pair (about ten seconds on one core); beyond, it
follows the neighbour graph."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TextDirection:
    """The way from one text to another in CLIP space, as it is kept in a configuration.

    The vector itself is kept, not only the texts, so that whoever draws pairs needs no CLIP.
    """

    source: str
    """Text at the start, such as "face"."""

    target: str
    """Text at the end, such as "face with sunglasses"."""

    vector: str
    """The unit direction [C]: little-endian float32, in base64."""

    def __post_init__(self) -> None:
        """Refuse what is no vector.

        Raises:
            PairError: the vector is not base64 of finite float32 numbers, or is zero.
        """
        try:
            vector = self.unit
        except (binascii.Error, ValueError) as error:
            raise PairError(f"the vector of {self} is not base64 of float32: {error}") from error
        if not np.isfinite(vector).all() or not vector.any():
            raise PairError(f"the direction from {self.source!r} to {self.target!r} has no length")

    @classmethod
    def of(cls, source: str, target: str, vector: Floats) -> Self:
        """Keep a direction [C] float32 of any length."""
        assert_shape(vector, (None,), "vector")
        unit = np.asarray(vector, dtype="<f4") / max(float(np.linalg.norm(vector)), 1e-12)
        encoded = base64.b64encode(unit.astype("<f4").tobytes()).decode()
        return cls(source=source, target=target, vector=encoded)

    @property
    def unit(self) -> Floats:
        """The direction [C] float32, of length 1."""
        return np.frombuffer(base64.b64decode(self.vector, validate=True), dtype="<f4")


@dataclass(frozen=True, kw_only=True, slots=True)
class PairConfig:
    """How a source row gets its target row."""

    policy: str = "random"
    """One policy, or a mixture of them with weights, such as ``random:0.7,nearest:0.3``.

    `random`: any other row, uniformly, as published. `nearest`: uniformly one of the row's nearest
    neighbours. `band`: uniformly one of the pairs whose cosine lies in the bounds. `direction`:
    uniformly one of the pairs whose CLIP difference follows `direction` best."""

    num_neighbours: int = 16
    """Targets per row that `nearest` and `direction` choose from."""

    min_similarity: float = -1.0
    """Least CLIP cosine of a pair; every policy but `random`, which `band` generalises."""

    max_similarity: float = 1.0
    """Largest CLIP cosine of a pair, under every policy; below 1 it keeps near-duplicates out."""

    direction: TextDirection | None = None
    """What `direction` follows."""

    direction_share: float = 0.1
    """Share of the rows' best pairs that `direction` keeps, those that follow it best."""

    seed: int = 0
    """Two samplers with equal seeds draw equal pairs."""

    def __post_init__(self) -> None:
        problems = self._mixture_problems()
        if self.num_neighbours < 1:
            problems.append(f"num_neighbours is {self.num_neighbours}: at least 1")
        low, high = self.min_similarity, self.max_similarity
        if not -1.0 <= low < high <= 1.0:
            problems.append(
                f"similarity bounds are {low} and {high}: cosines, the first below the second"
            )
        if not 0.0 < self.direction_share <= 1.0:
            problems.append(f"direction_share is {self.direction_share}: above 0, at most 1")
        if problems:
            raise PairError("; ".join(problems))

    def _mixture_problems(self) -> list[str]:
        try:
            mixture = self.mixture
        except ValueError as error:
            return [str(error)]
        problems: list[str] = []
        if tuple(mixture) == ("random",) and self.min_similarity > -1.0:
            problems.append("policy random has no least similarity: use band or nearest")
        if ("direction" in mixture) != (self.direction is not None):
            problems.append(
                f"policy is {self.policy!r} and direction {self.direction}: policy direction needs "
                "a text to lead to (--to), the others take none"
            )
        return problems

    @property
    def mixture(self) -> dict[Policy, float]:
        """Share of the draws that each policy makes; they sum to 1.

        Raises:
            PairError: an unknown policy, one named twice, or a weight that is not positive.
        """
        weights: dict[Policy, float] = {}
        for part in self.policy.split(","):
            name, _, weight = (text.strip() for text in part.partition(":"))
            policy = _NAMED.get(name)
            if policy is None or policy in weights:
                raise PairError(
                    f"policy is {self.policy!r}: name each of {', '.join(POLICIES)} at most once, "
                    "with weights in a mixture: random:0.7,nearest:0.3"
                )
            weights[policy] = _positive(weight or "1", self.policy)
        total = sum(weights.values())
        return {name: weight / total for name, weight in weights.items()}

    def needs_graph(self, num_rows: int) -> bool:
        """Whether drawing among `num_rows` rows takes their neighbour graph."""
        mixture = self.mixture
        follows = "direction" in mixture and num_rows > EXACT_DIRECTION_ROWS
        return "nearest" in mixture or follows

    @property
    def needs_clip(self) -> bool:
        """Whether drawing takes the rows' CLIP embeddings."""
        return not self.mixture.keys() <= {"nearest", "random"} or (
            "random" in self.mixture and self.max_similarity < 1.0
        )


def _positive(text: str, policy: str) -> float:
    try:
        weight = float(text)
    except ValueError:
        weight = -1.0
    if not 0.0 < weight < float("inf"):
        raise PairError(f"policy is {policy!r}: the weight {text!r} is not a positive number")
    return weight
