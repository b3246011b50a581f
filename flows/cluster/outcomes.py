"""What becomes of a shard, in this process or on a cluster. Needs no Dask."""

from dataclasses import dataclass
from typing import Any, TypeAlias

Record: TypeAlias = dict[str, Any]
"""What is told of a finished shard: a few numbers and names."""


@dataclass(frozen=True, slots=True)
class ShardDone:
    """A shard is committed."""

    shard: Any
    """As it was given to the loop."""
    record: Record
    """What the job told of it."""


@dataclass(frozen=True, slots=True)
class ShardFailed:
    """A shard was tried as often as allowed."""

    shard: Any
    """As it was given to the loop."""
    reason: str
    """What the last try said."""


Outcome: TypeAlias = ShardDone | ShardFailed


@dataclass(frozen=True, slots=True)
class InWork:
    """A shard that a worker works on."""

    number: int
    """Its number in the store."""
    worker: str
    """Address of the worker."""
    seconds: float
    """How long ago it began, or the shard before it was done."""
