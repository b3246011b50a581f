"""Threads that take batches through the models, in order, in parts that fit the device."""

import logging
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeAlias, TypeVar

import numpy as np
import torch

from pipeline.errors import PipelineError

log = logging.getLogger("deltaedit")

Batch = TypeVar("Batch")
Rows: TypeAlias = dict[str, np.ndarray]
Encode: TypeAlias = Callable[[Sequence[Any]], Rows]
"""From the inputs of a batch to its rows."""

CPU_BATCH = 16
"""Images that go through the models together on a CPU; more would not stay in its caches."""
CUDA_THREADS = 2
"""While the GPU works for one, the other feeds it and takes results back; a stream for each."""

UNLIMITED: AbstractContextManager[object] = nullcontext()
"""In place of a semaphore of processors: any number of threads may compute."""


class ModelThreads:
    """Runs batches on a device as fast as it takes them, and gives their rows back in order.

    On a CPU each thread works on a batch of its own with one processor: threads that share one
    operation would wait for each other wherever something else, such as decoding, runs too. How
    many there are is what torch was told (``OMP_NUM_THREADS``, default: all processors).
    On CUDA the threads only feed the device.

    Args:
        device: where the models are.
        batch_size: images of a batch at most.
        processor: held by whoever computes on a processor, such as decoders, so that no more
            threads compute than there are processors: with more, Python's lock passes between them
            all the time. A semaphore of as many; not used on CUDA.

    Attributes:
        batch_size: images of a batch; the same in every run of the same options, so that rows are
            the same, bit for bit.
        part_size: images that go through the models together; halved whenever the device's memory
            is too small for them.
    """

    def __init__(
        self,
        device: torch.device,
        batch_size: int,
        processor: AbstractContextManager[object] = UNLIMITED,
    ) -> None:
        self._device = device
        self._on_cuda = device.type == "cuda"
        self._num_threads = CUDA_THREADS if self._on_cuda else torch.get_num_threads()
        self.batch_size = batch_size if self._on_cuda else min(batch_size, CPU_BATCH)
        self.part_size = self.batch_size
        self._processor = UNLIMITED if self._on_cuda else processor

    def map(
        self,
        encode: Encode,
        batches: Iterable[tuple[Batch, Sequence[Any]]],
    ) -> Generator[tuple[Batch, Callable[[], Rows]], None, None]:
        """Encode batches ahead of the caller, as many as there are threads and one more.

        Args:
            encode: from inputs to rows, called by the threads.
            batches: each with its inputs, which may be none.

        Yields:
            Each batch in order, with what waits for its rows and returns them.
        """
        waiting: deque[tuple[Batch, Future[Rows]]] = deque()
        num_threads = torch.get_num_threads()
        with ThreadPoolExecutor(
            self._num_threads, thread_name_prefix="models", initializer=self._prepare_thread
        ) as pool:
            try:
                for batch, inputs in batches:
                    waiting.append((batch, pool.submit(self.in_parts, encode, inputs)))
                    while len(waiting) > self._num_threads + 1:
                        done, future = waiting.popleft()
                        yield done, future.result
                while waiting:
                    done, future = waiting.popleft()
                    yield done, future.result
            finally:
                for _, future in waiting:
                    future.cancel()
                torch.set_num_threads(num_threads)  # threads made later take over the last number

    def _prepare_thread(self) -> None:
        if self._on_cuda:
            torch.cuda.set_stream(torch.cuda.Stream(self._device))
        else:
            torch.set_num_threads(1)

    def in_parts(self, encode: Encode, inputs: Sequence[Any]) -> Rows:
        """Encode `inputs` part by part; a part that is too large for the device is halved.

        Raises:
            PipelineError: there is no room even for one.
        """
        parts: list[Rows] = []
        begin = 0
        while begin < len(inputs):
            part = inputs[begin : begin + self.part_size]
            rows = self._rows_or_none(encode, part)
            if rows is not None:
                parts.append(rows)
                begin += len(part)
            elif len(part) == 1:
                raise PipelineError(
                    f"{self._device}: not enough memory for one image; free the device of other "
                    "programs, or take --device cpu or a lower --precision"
                )
            else:
                self._halve(len(part))
        names = parts[0] if parts else ()
        return {name: np.concatenate([rows[name] for rows in parts]) for name in names}

    def _rows_or_none(self, encode: Encode, part: Sequence[Any]) -> Rows | None:
        try:
            with self._processor:
                return encode(part)
        except torch.OutOfMemoryError:
            return None  # what the models held is freed when the exception is

    def _halve(self, size: int) -> None:
        if self._on_cuda:
            torch.cuda.empty_cache()
        self.part_size = min(self.part_size, size // 2)
        log.warning(
            "%s has no memory for %d images at once; going on with %d",
            self._device,
            size,
            self.part_size,
        )
