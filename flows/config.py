"""The edge to the outside: environment, defaults of the machine, configuration files.

This is the only module that reads or sets environment variables.
"""

import ctypes
import dataclasses
import json
import os
from pathlib import Path
from typing import Any

from stores.places import StorePath, default_cache

OFFLINE = {
    # Prefect asks two hosts about itself unless both are said (docs/architecture.md, "Offline").
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    # open_clip reaches for a hub when a local file is missing; we would rather fail at once.
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
}

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of malloc.h
_LARGEST_MMAP_THRESHOLD = 32 * 2**20


def go_offline() -> None:
    """Switch off telemetry and downloads of the libraries we use, unless the user set them."""
    for name, value in OFFLINE.items():
        os.environ.setdefault(name, value)


def prepare_prefect() -> None:
    """Defaults of Prefect that have to stand before it is imported, unless the user set them."""
    go_offline()
    # Its temporary server takes 9 to 21 s, more on a busy machine; by default it gives up at 20 s.
    os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "180")


def prefect_is_configured() -> bool:
    """Whether the user points Prefect at a server; only then are runs recorded there."""
    return bool(os.environ.get("PREFECT_API_URL"))


def models_folder() -> Path:
    """Where official weight files are looked for: ``$DELTAEDIT_MODELS``, else ``./models``."""
    return Path(os.environ.get("DELTAEDIT_MODELS", "models"))


def cache_folder() -> Path:
    """Where copies of remote stores' files are: ``$DELTAEDIT_CACHE``, else the user's cache."""
    if chosen := os.environ.get("DELTAEDIT_CACHE"):
        return Path(chosen)
    users = os.environ.get("XDG_CACHE_HOME")
    return Path(users) / "deltaedit" if users else default_cache()


def keep_freed_memory() -> None:
    """Have malloc keep what models free for their next batch; elsewhere than on glibc nothing.

    By default it gives such memory back and gets it again, zeroed page by page: up to a tenth of a
    batch's time. Tensors above 32 MB are beyond this, and peak memory stays as it is.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    if mallopt is not None:
        mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
        mallopt(_M_MMAP_THRESHOLD, _LARGEST_MMAP_THRESHOLD)


def num_cpus() -> int:
    """Processors that this process may use (a cluster gives fewer than the machine has)."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def free_memory_bytes() -> int:
    """Memory that this process may still take: what is free, or less where a container has less."""
    meminfo = Path("/proc/meminfo").read_text(encoding="ascii")
    lines = dict(line.split(":", 1) for line in meminfo.splitlines())
    free = int(lines["MemAvailable"].split()[0]) * 1024
    group = Path("/sys/fs/cgroup")
    limit, used = group / "memory.max", group / "memory.current"
    if limit.is_file() and used.is_file() and (text := limit.read_text().strip()) != "max":
        free = min(free, int(text) - int(used.read_text()))
    return max(free, 0)


@dataclasses.dataclass(frozen=True, slots=True)
class Ranks:
    """The place of this process among those that `torchrun` started."""

    rank: int = 0
    """Its number, from 0; number 0 writes."""
    count: int = 1
    """How many there are."""
    local: int = 0
    """Its number on its machine: which GPU it takes."""


def torchrun_ranks() -> Ranks:
    """What `torchrun` says of this process; one process alone without it."""
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
    if any(name not in os.environ for name in names):
        return Ranks()
    return Ranks(*(int(os.environ[name]) for name in names))


def cpu_share(num_processes: int) -> int:
    """Threads of compute for each of several processes on this machine.

    ``OMP_NUM_THREADS`` stays a limit where the user set it.
    """
    share = max(1, num_cpus() // num_processes)
    limit = os.environ.get("OMP_NUM_THREADS", "")
    return min(share, int(limit)) if limit.isdecimal() and int(limit) else share


def chosen_gpus() -> list[str] | None:
    """The GPUs that ``CUDA_VISIBLE_DEVICES`` leaves, as it names them; None where it is not set."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    return None if chosen is None else [name.strip() for name in chosen.split(",") if name.strip()]


def as_jsonable(config: Any) -> Any:
    """A configuration of nested dataclasses as plain JSON values."""
    if isinstance(config, StorePath):
        return str(config)
    if dataclasses.is_dataclass(config) and not isinstance(config, type):
        return {f.name: as_jsonable(getattr(config, f.name)) for f in dataclasses.fields(config)}
    if isinstance(config, dict):
        return {str(key): as_jsonable(value) for key, value in config.items()}
    if isinstance(config, list | tuple):
        return [as_jsonable(value) for value in config]
    return config


def resolved_text(config: Any) -> str:
    """A configuration as the JSON text that is printed and stored beside the output."""
    return json.dumps(as_jsonable(config), indent=2)
