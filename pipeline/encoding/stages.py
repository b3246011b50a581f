"""Where the time of a batch goes: by the processor's clock, or by the GPU's own on CUDA."""

import time

import torch

STAGES = ("copy", "clip", "e4e", "generator")
"""Stages of a batch: to the device and back, and through each model with its pre-processing."""


class StageClock:
    """Seconds of each stage of one batch.

    A GPU runs behind the program that feeds it, so on CUDA the stages are marked by events in the
    stream of the calling thread, and read once the results are on the host.
    """

    def __init__(self, device: torch.device) -> None:
        self._on_cuda = device.type == "cuda"
        self._marks: list[tuple[str, float | torch.cuda.Event]] = []

    def begin(self, stage: str) -> None:
        """`stage` begins here, and the one before ends."""
        self._marks.append((stage, self._now()))

    def seconds(self) -> dict[str, float]:
        """Seconds by stage up to the last mark, which must be reached: results are on the host."""
        spent: dict[str, float] = {}
        for (stage, begin), (_, end) in zip(self._marks, self._marks[1:], strict=False):
            if isinstance(begin, torch.cuda.Event):
                assert isinstance(end, torch.cuda.Event)
                length = begin.elapsed_time(end) / 1000
            else:
                assert isinstance(end, float)
                length = end - begin
            spent[stage] = spent.get(stage, 0.0) + length
        return spent

    def _now(self) -> "float | torch.cuda.Event":
        if not self._on_cuda:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event
