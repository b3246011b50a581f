"""Several processes that train one mapper, started by `torchrun`: who is who, and how they meet."""

from collections.abc import Iterator
from contextlib import contextmanager

from flows.config import Ranks, torchrun_ranks


@contextmanager
def joined(device: str) -> Iterator[tuple[Ranks, str]]:
    """Join the processes that `torchrun` started, for the length of the block.

    Args:
        device: cpu, cuda or cuda:i; cuda becomes the GPU of this process's local rank.

    Yields:
        This process's place among them, and its device. A process that `torchrun` did not start is
        the only one.
    """
    ranks = torchrun_ranks()
    if ranks.count == 1:
        yield ranks, device
        return
    import torch.distributed

    if device.startswith("cuda"):
        device = f"cuda:{ranks.local}"
        torch.cuda.set_device(device)
    torch.distributed.init_process_group("nccl" if device.startswith("cuda") else "gloo")
    try:
        yield ranks, device
    finally:
        torch.distributed.destroy_process_group()
