"""What a precompute run did, and what its listing and the store disagree about."""

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from stores.plan import Plan

log = logging.getLogger("deltaedit")

NUM_NAMED = 5
"""Keys that a warning names."""


@dataclass(frozen=True, slots=True)
class PrecomputeSummary:
    """What a run did; every input is a row, a reject, a duplicate or still pending."""

    store: Path
    """The store."""
    inputs: int
    """Inputs of the whole store, those of earlier runs included."""
    rows: int
    """Inputs with a row."""
    rejects: int
    """Inputs that gave none; their reasons are in the store."""
    duplicates: int
    """Inputs whose content another input has too."""
    shards_made: int
    """Shards committed by this run."""
    images_made: int
    """Inputs of the shards that this run committed."""
    seconds: float
    """Time of this run, loading of the models included."""
    stage_seconds: dict[str, float]
    """Seconds of the main thread in each stage, summed over the workers of a cluster."""
    changed: int = 0
    """Inputs whose file changed since it was encoded; their rows are the old ones."""
    pending: int = 0
    """Inputs without an outcome yet: those of shards that failed, or that other runs have."""
    vanished: int = 0
    """Inputs with a row that the sources no longer have."""
    shards_failed: int = 0
    """Shards that were given up; the same command tries them again."""
    failures: tuple[str, ...] = ()
    """Why, for the first of them."""

    @property
    def images_per_s(self) -> float:
        """Inputs of the shards made in this run, over its time."""
        return self.images_made / max(self.seconds, 1e-9)

    @property
    def reject_rate(self) -> float:
        """Rejects over inputs of the whole store."""
        return self.rejects / max(self.inputs, 1)

    def as_dict(self) -> dict[str, Any]:
        """For --json and for reports."""
        return asdict(self) | {
            "store": str(self.store),
            "seconds": round(self.seconds, 3),
            "images_per_s": round(self.images_per_s, 2),
            "reject_rate": round(self.reject_rate, 6),
        }


def warn_of_changes(plan: Plan) -> None:
    """Say what the listing and the store disagree about."""
    if plan.changed:
        log.warning(
            "%d inputs changed since they were encoded and keep their old rows (%s); encode them "
            "into another store to have them anew",
            len(plan.changed),
            _some(plan.changed),
        )
    if plan.vanished:
        log.warning(
            "%d inputs are gone from the sources; their rows stay (%s)",
            len(plan.vanished),
            _some(plan.vanished),
        )


def _some(keys: Sequence[str]) -> str:
    return ", ".join(keys[:NUM_NAMED]) + (", ..." if len(keys) > NUM_NAMED else "")
