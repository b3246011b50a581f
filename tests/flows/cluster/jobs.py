"""Shards without images: jobs that sleep, fail or hang, and write down what they do.

A module of its own because workers import it.
"""

import os
import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Shard:
    number: int


@dataclass(frozen=True)
class SleepJob:
    """Sleeps a while for each shard; `bad` ones fail, `stuck` ones hang on the first worker."""

    log: Path
    seconds: float = 0.0
    bad: frozenset[int] = frozenset()
    stuck: frozenset[int] = frozenset()

    def __call__(self, shards: Sequence[Shard]) -> Generator[dict[str, int], None, None]:
        for shard in shards:
            with self.log.open("a") as file:
                file.write(f"{shard.number} {os.getpid()} {len(shards)}\n")
            if shard.number in self.bad:
                raise ValueError(f"shard {shard.number} is bad")
            if shard.number in self.stuck and self.tries(shard.number) == 1:
                time.sleep(3600)
            time.sleep(self.seconds)
            yield {"twice": 2 * shard.number}

    def lines(self) -> list[tuple[int, int, int]]:
        """Shard, process and size of the block of every computation that began."""
        rows = (line.split() for line in self.log.read_text().splitlines())
        return [(int(number), int(pid), int(size)) for number, pid, size in rows]

    def tries(self, number: int) -> int:
        return sum(line[0] == number for line in self.lines())
