"""The workers of a cluster as the driver sees them: who is there, and who had better be spared."""

import time
from collections import Counter
from collections.abc import Collection

from distributed import Client

from flows.cluster.connect import ClusterError, Connection, connected_workers

SUSPECT = 2
"""Faults in a row after which a worker gets no more work while others are there."""
LOST = "committed shards are safe: run the same command again to make the others"


class Crew:
    """Workers that are connected, and their faults."""

    def __init__(self, connection: Connection) -> None:
        self._client: Client = connection.client
        self._timeout_s = connection.worker_timeout_s
        self._alive: set[str] = set()
        self._faults: Counter[str] = Counter()
        self._last_seen = time.monotonic()

    def __len__(self) -> int:
        return len(self._alive)

    def look(self) -> None:
        """Ask the scheduler who is there.

        Raises:
            ClusterError: the scheduler is gone for good, or there has been no worker for too long.
        """
        if self._client.status == "closed":
            raise ClusterError(f"the connection to the Dask scheduler is lost; {LOST}")
        if self._client.status != "running":
            return  # the client tries to connect again, and closes if it cannot
        try:
            self._alive = connected_workers(self._client)
        except OSError:
            return  # the client will notice too
        if self._alive:
            self._last_seen = time.monotonic()
        elif time.monotonic() - self._last_seen > self._timeout_s:
            raise ClusterError(f"no worker is left since {self._timeout_s:.0f} s; {LOST}")

    def fit(self, avoid: Collection[str]) -> list[str] | None:
        """The workers that should get a block; None where any may have it."""
        spared = {w for w in self._alive if w in avoid or self._faults[w] >= SUSPECT}
        return sorted(self._alive - spared) or None if spared else None

    def worked(self, worker: str) -> None:
        """A shard was done there."""
        self._faults.pop(worker, None)

    def failed(self, worker: str) -> None:
        """A shard raised there."""
        self._faults[worker] += 1

    def hangs(self, worker: str) -> None:
        """A shard does not come back from there."""
        self._faults[worker] += SUSPECT
