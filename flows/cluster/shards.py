"""The driver's loop: a bounded number of shards in flight, failures tried again elsewhere.

Dask reruns what a dying worker had in work. Everything else is decided here: which shards travel
together, how often a shard that raises is tried, when one that does not come back is given to
another worker, and when to stop. What is done is decided by the store alone: a job looks there
first, so a shard that is sent twice is made once, or made alike.
"""

import logging
import math
import statistics
import time
import uuid
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import CancelledError
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any

from distributed import Future

from flows.cluster.connect import ClusterError, Connection
from flows.cluster.crew import LOST, Crew
from flows.cluster.outcomes import InWork, Outcome, Record, ShardDone, ShardFailed
from flows.cluster.worker import DONE, BlockReport, Job, Numbered, pack, run_block
from flows.exits import stop_if_asked

log = logging.getLogger("deltaedit")

TICK_S = 0.5
"""How often the loop looks at the workers and at the clock."""
FETCH_S = 60.0
"""How long the report of a finished block may take to arrive."""
NUM_TIMES = 101
"""Shards whose time the median is taken of."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LoopConfig:
    """How shards are handed out."""

    max_tries: int = 3
    """Times that a shard may fail before it is reported as failed."""
    blocks_per_worker: int = 2
    """Blocks in flight for each worker: one in work, one at hand."""
    block_s: float = 10.0
    """Wanted time of a block in seconds: reading, models and commits overlap within a block."""
    max_block: int = 16
    """Most shards of a block."""
    shard_timeout_s: float = 1800.0
    """A shard that takes longer, and longer than `slow_factor` medians, goes to another worker."""
    slow_factor: float = 10.0
    """How many times the median a shard may take."""
    max_failed_in_a_row: int = 10
    """Shards that may fail one after the other, none being done between, before the run stops."""


@dataclass(slots=True)
class _Block:
    """Shards that travel together."""

    left: dict[int, Numbered]
    """Those that are not done yet, by number."""
    num_tries: int = 0
    """How often it failed; counted for blocks of one shard only."""
    avoid: frozenset[str] = frozenset()
    """Workers on which it failed."""
    worker: str = ""
    """The worker that works on it; empty before it began."""
    touched: float = 0.0
    """When it was sent, began, or had a shard done, by this process's monotonic clock."""


class ShardLoop:
    """Runs a job over shards on the workers of a cluster.

    Futures are released as soon as their small report is read, and the shards are walked through
    once, so memory does not grow with their number.
    """

    def __init__(self, connection: Connection, job: Job, config: LoopConfig | None = None) -> None:
        self._client, self._job = connection.client, job
        self._config = config or LoopConfig()
        self._crew = Crew(connection)
        self._topic = f"deltaedit-{uuid.uuid4().hex[:12]}"
        self._messages: SimpleQueue[tuple[str, Mapping[str, Any] | None]] = SimpleQueue()
        self._in_flight: dict[str, tuple[Future, _Block]] = {}
        self._again: deque[_Block] = deque()
        self._times: deque[float] = deque(maxlen=NUM_TIMES)
        self._num_sent = self._failed_in_a_row = 0
        self._next_look = 0.0

    @property
    def num_workers(self) -> int:
        """Workers at the last look."""
        return len(self._crew)

    @property
    def in_work(self) -> list[InWork]:
        """What is in work at this moment, one shard for each busy worker."""
        now = time.monotonic()
        blocks = [block for _, block in tuple(self._in_flight.values()) if block.worker]
        # Asked for from another thread: a copy of each dict, taken in one step.
        firsts = [(tuple(b.left)[:1], b) for b in blocks]
        return [InWork(n, b.worker, now - b.touched) for first, b in firsts for n in first]

    def run(self, shards: Sequence[Numbered]) -> Iterator[Outcome]:
        """Make shards; each comes back once, done or failed, in the order in which they end.

        Raises:
            ClusterError: the scheduler is gone, no worker is left, or shard after shard fails.
        """
        num_left, position = len(shards), 0
        self._client.subscribe_topic(self._topic, self._hear)
        try:
            while num_left:
                stop_if_asked()
                for outcome in self._look() if time.monotonic() > self._next_look else ():
                    num_left -= 1
                    yield outcome
                position = self._hand_out(shards, position)
                for outcome in self._next_outcomes():
                    num_left -= 1
                    yield outcome
        finally:
            self._drop_all()

    def _hear(self, event: tuple[float, Mapping[str, Any]]) -> None:
        """Take a worker's message; runs in the client's thread."""
        self._messages.put((event[1]["key"], event[1]))

    def _hand_out(self, shards: Sequence[Numbered], position: int) -> int:
        """Send blocks until enough are in flight, those that failed before first.

        Args:
            shards: all of the run.
            position: of the first that was never sent.

        Returns:
            The new position.
        """
        room = max(1, len(self._crew)) * self._config.blocks_per_worker
        while len(self._in_flight) < room:
            if self._again:
                self._send(self._again.popleft())
            elif position < len(shards):
                size = self._block_size(len(shards) - position, room)
                self._send(_block(shards[position : position + size]))
                position += size
            else:
                break
        return position

    def _block_size(self, num_left: int, room: int) -> int:
        """Shards for the wanted time; fewer towards the end, so that all workers end together."""
        if not self._times:
            return 1
        wanted = math.ceil(self._config.block_s / max(statistics.median(self._times), 1e-3))
        return max(1, min(wanted, self._config.max_block, num_left // room))

    def _send(self, block: _Block) -> None:
        self._num_sent += 1
        key = f"{self._topic}-{self._num_sent}"
        block.worker, block.touched = "", time.monotonic()
        fit = self._crew.fit(block.avoid)
        future = self._client.submit(
            run_block,
            pack(self._job, tuple(block.left.values())),
            self._topic,
            key=key,
            workers=fit,
            # Should all of them have left, any other may take it.
            allow_other_workers=fit is not None,
            pure=False,
        )
        self._in_flight[key] = (future, block)
        future.add_done_callback(lambda future: self._messages.put((future.key, None)))

    def _next_outcomes(self) -> Iterator[Outcome]:
        """What the next message means, if one comes soon."""
        try:
            key, event = self._messages.get(timeout=TICK_S)
        except Empty:
            return
        if key not in self._in_flight:
            return  # of a block that was given elsewhere, or has ended
        if event is None:
            yield from self._ended(*self._in_flight.pop(key))
            return
        block = self._in_flight[key][1]
        block.worker, block.touched = event["worker"], time.monotonic()
        if event["state"] == DONE:
            self._times.append(event["seconds"])
            yield from self._done(block, {event["number"]: event["record"]})

    def _done(self, block: _Block, records: Mapping[int, Record]) -> Iterator[Outcome]:
        """Shards of a block are committed; those that were reported before are passed over."""
        for number in records.keys() & block.left.keys():
            self._crew.worked(block.worker)
            self._failed_in_a_row = 0
            yield ShardDone(block.left.pop(number), records[number])

    def _ended(self, future: Future, block: _Block) -> Iterator[Outcome]:
        """A block came back: whole, in part with the error that ended it, or not at all."""
        try:
            if future.status == "finished":
                report: BlockReport = future.result(timeout=FETCH_S)
                block.worker = report.worker
                yield from self._done(block, report.records)
                reason = report.error
            elif future.status == "error":
                reason = str(future.exception(timeout=FETCH_S))
            else:
                reason = None  # the connection to the scheduler broke
        except (OSError, TimeoutError, CancelledError) as error:
            reason = f"its report was lost: {error!r}"
        finally:
            future.release()
        if not block.left:
            return
        if reason is None:
            self._again.append(block)
        else:
            self._crew.failed(block.worker)
            yield from self._failed(block, reason)

    def _failed(self, block: _Block, reason: str) -> Iterator[Outcome]:
        """Try again: the shards of a block one by one, a single one until its tries are used up."""
        avoid = block.avoid | {block.worker}
        if len(block.left) > 1:
            log.warning(
                "a block of %d shards failed, each is tried alone: %s", len(block.left), reason
            )
            self._again.extend(_Block({n: s}, avoid=avoid) for n, s in block.left.items())
            return
        (number, shard), block.avoid = next(iter(block.left.items())), avoid
        block.num_tries += 1
        most = self._config.max_tries
        log.warning("shard %d failed, try %d of %d: %s", number, block.num_tries, most, reason)
        if block.num_tries < most:
            self._again.append(block)
            return
        yield ShardFailed(shard, reason)
        self._failed_in_a_row += 1
        if self._failed_in_a_row >= self._config.max_failed_in_a_row:
            raise ClusterError(
                f"{self._failed_in_a_row} shards failed one after the other, the last one with: "
                f"{reason}. Mend that; {LOST}"
            )

    def _look(self) -> Iterator[Outcome]:
        """Look after the workers, and after blocks that do not come back."""
        self._next_look = time.monotonic() + TICK_S
        self._crew.look()
        median = statistics.median(self._times) if self._times else 0.0
        limit = max(self._config.shard_timeout_s, self._config.slow_factor * median)
        oldest = time.monotonic() - limit
        slow = [key for key, (_, block) in self._in_flight.items() if block.touched < oldest]
        for key in slow:
            future, block = self._in_flight.pop(key)
            future.release()
            if not block.worker:
                self._again.append(block)  # it waits behind one that hangs
                continue
            self._crew.hangs(block.worker)
            reason = f"no shard was done in {limit:.0f} s on {block.worker}"
            yield from self._failed(block, reason)

    def _drop_all(self) -> None:
        """Nobody waits for what is in flight any more: workers stop after the shard in work."""
        for future, _ in self._in_flight.values():
            future.release()
        self._in_flight.clear()
        if self._client.status == "running":
            self._client.unsubscribe_topic(self._topic)


def _block(shards: Sequence[Numbered]) -> _Block:
    return _Block({shard.number: shard for shard in shards})
