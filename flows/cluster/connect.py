"""A client of the cluster that a spec names; clusters started for the run are closed with it."""

import importlib
import importlib.util
import logging
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from typing import Any, TypeVar

import dask.config
from distributed import Client, KilledWorker, Nanny, Scheduler, SpecCluster
from distributed.system import MEMORY_LIMIT
from distributed.utils import get_mp_context

from flows.cluster.spec import ClassSpec, ClusterSpec, LocalSpec, RunningSpec
from flows.config import chosen_gpus, cpu_share
from flows.exits import IncompleteError, WrongCallError, stop_if_asked

log = logging.getLogger("deltaedit")

Answer = TypeVar("Answer")

LOOPBACK = "127.0.0.1"
WORKER_TTL_S = 60.0
"""A worker of our own that sent no heartbeat for so long is killed and started again."""
CLOSE_S = 20.0
"""How long closing may take before processes are left to die with this one."""
POLL_S = 0.2


class ClusterError(IncompleteError):
    """The cluster cannot do the work (any more); what is committed is safe."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Connection:
    """A cluster that is ready for work."""

    client: Client
    """Its client."""
    worker_timeout_s: float
    """How long the cluster may be without any worker."""
    threads: int | None = None
    """Compute threads that each worker should use; None leaves it to how it was started."""


@contextmanager
def connect(
    spec: ClusterSpec, *, device: str = "auto", preload: Sequence[str] = ()
) -> Iterator[Connection]:
    """Give a client of the cluster for the length of the block, once it has workers.

    Args:
        spec: which cluster.
        device: what the models will run on; ``cpu`` leaves the GPUs alone.
        preload: modules that local workers share instead of importing them one by one.

    Raises:
        WrongCallError: the class cannot be imported or refuses its arguments.
        ClusterError: there is no scheduler, or no worker came in time.
    """
    with (
        _quiet_forks(preload) if isinstance(spec, LocalSpec) else nullcontext(),
        _cluster(spec, device) as cluster,
        _client(spec, cluster) as client,
    ):
        wanted = spec.num_workers if isinstance(spec, LocalSpec) else 1
        log.info("cluster: %s; dashboard: %s%s", _address(client), client.dashboard_link, _hint())
        _wait_for_workers(client, wanted, spec)
        threads = cpu_share(spec.num_workers) if isinstance(spec, LocalSpec) else None
        yield Connection(client=client, worker_timeout_s=spec.worker_timeout_s, threads=threads)


@contextmanager
def _quiet_forks(preload: Sequence[str]) -> Iterator[None]:
    """Local workers are forked from one process that has the imports, and only errors are told."""
    logger = logging.getLogger("distributed")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with dask.config.set({"distributed.worker.multiprocessing-method": "forkserver"}):
            get_mp_context().set_forkserver_preload(["distributed", *preload])
            yield
    finally:
        logger.setLevel(level)


@contextmanager
def _cluster(spec: ClusterSpec, device: str) -> Iterator[Any]:
    """The cluster that has to be started; None for one that runs already."""
    if isinstance(spec, RunningSpec):
        yield None
        return
    cluster = _local_cluster(spec, device) if isinstance(spec, LocalSpec) else start_class(spec)
    try:
        yield cluster
    finally:
        # A cluster that does not answer must not keep an interrupted run from ending.
        with suppress(TimeoutError, OSError):
            cluster.close(timeout=CLOSE_S)


@contextmanager
def _client(spec: ClusterSpec, cluster: Any) -> Iterator[Client]:
    try:
        if isinstance(spec, RunningSpec):
            file = str(spec.scheduler_file) if spec.scheduler_file else None
            client = Client(spec.address, scheduler_file=file)
        else:
            client = Client(cluster)
    except (OSError, TimeoutError) as error:
        named = getattr(spec, "address", None) or getattr(spec, "scheduler_file", None)
        raise ClusterError(
            f"no Dask scheduler answers at {named or spec}: {error}. Start one (dask scheduler), "
            "or check the address and the firewall."
        ) from error
    try:
        yield client
    finally:
        with suppress(TimeoutError, OSError):
            client.close(timeout=CLOSE_S)


def _local_cluster(spec: LocalSpec, device: str) -> SpecCluster:
    """Worker processes of one thread each; GPUs are dealt out in turn."""
    options: dict[str, Any] = {
        "nthreads": 1,
        "host": LOOPBACK,
        "memory_limit": MEMORY_LIMIT // spec.num_workers,
        "dashboard_address": None,
        "silence_logs": logging.ERROR,
    }
    workers = {
        number: {"cls": Nanny, "options": options | {"env": environment}}
        for number, environment in enumerate(worker_environments(spec.num_workers, device))
    }
    scheduler = {"host": LOOPBACK, "port": 0, "dashboard_address": f"{LOOPBACK}:0"}
    return SpecCluster(
        workers=workers,
        scheduler={"cls": Scheduler, "options": scheduler | {"worker_ttl": WORKER_TTL_S}},
        silence_logs=logging.ERROR,  # pyright: ignore[reportArgumentType] - a level is meant
    )


def worker_environments(num_workers: int, device: str) -> list[dict[str, str]]:
    """What sets the local workers apart: the GPU that each of them sees.

    Args:
        num_workers: how many there are; more than GPUs share them.
        device: what the models will run on.

    Raises:
        WrongCallError: the device is one certain GPU.
    """
    if device.startswith("cuda:"):
        raise WrongCallError(
            f"--device {device} names one GPU, but each local worker gets a GPU of its own: use "
            "--device cuda, and CUDA_VISIBLE_DEVICES to leave GPUs out"
        )
    gpus = [] if device == "cpu" else _gpus()
    if not gpus:
        return [{} for _ in range(num_workers)]
    return [{"CUDA_VISIBLE_DEVICES": gpus[n % len(gpus)]} for n in range(num_workers)]


def _gpus() -> list[str]:
    chosen = chosen_gpus()
    if chosen is not None:
        return chosen
    import torch

    return [str(number) for number in range(torch.cuda.device_count())]


def start_class(spec: ClassSpec) -> Any:
    """Start a cluster of the class that the spec names, and ask for its workers.

    Raises:
        WrongCallError: the class cannot be imported or refuses its arguments, or the batch
            system's submit command is not on this machine.
    """
    cluster_class = _import_class(spec.class_name)
    try:
        cluster = cluster_class(**spec.arguments)
    except (TypeError, ValueError, OSError, RuntimeError) as error:
        raise WrongCallError(
            f"{spec.class_name} refuses {_shown(spec.arguments)}: {error}"
        ) from error
    # Without its submit command a batch cluster has no workers for ever, and does not say so.
    submit = getattr(getattr(cluster, "job_cls", None), "submit_command", None)
    if submit and shutil.which(submit.split()[0]) is None:
        cluster.close()
        raise WrongCallError(
            f"{spec.class_name} starts its workers with {submit!r}, which is not on this machine: "
            "run this command on a node that may submit jobs"
        )
    if spec.adapt is not None:
        cluster.adapt(**spec.adapt)
    elif spec.num_workers is not None:
        cluster.scale(spec.num_workers)
    return cluster


def _import_class(name: str) -> Any:
    module, _, attribute = name.rpartition(".")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise WrongCallError(f"cluster class {name} cannot be imported: {error}") from error


def _shown(arguments: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value!r}" for name, value in arguments.items()) or "no arguments"


def ask_a_worker(connection: Connection, question: Callable[[], Answer]) -> Answer:
    """Call a picklable function of no arguments on any worker.

    Raises:
        ClusterError: workers die of it, or none is left.
        Exception: whatever it raises.
    """
    future = connection.client.submit(question, pure=False)
    try:
        return future.result()  # pyright: ignore[reportReturnType] - not a coroutine here
    except (KilledWorker, CancelledError) as error:
        raise ClusterError(f"no worker could answer: {error}") from error
    finally:
        future.release()


def connected_workers(client: Client) -> set[str]:
    """The addresses of a cluster's workers, asked for now.

    Raises:
        OSError: the scheduler does not answer.
    """
    return set(client.nthreads())  # pyright: ignore[reportArgumentType] - not a coroutine here


def _wait_for_workers(client: Client, wanted: int, spec: ClusterSpec) -> None:
    deadline = time.monotonic() + spec.worker_timeout_s
    while (found := len(connected_workers(client))) < wanted:
        stop_if_asked()
        if time.monotonic() > deadline:
            raise ClusterError(_nobody_came(client, found, wanted, spec))
        time.sleep(POLL_S)


def _nobody_came(client: Client, found: int, wanted: int, spec: ClusterSpec) -> str:
    message = (
        f"{found} of at least {wanted} workers joined {_address(client)} within "
        f"{spec.worker_timeout_s:.0f} s"
    )
    if isinstance(spec, RunningSpec):
        return f"{message}; start some: dask worker {_address(client)} --nthreads 1"
    if isinstance(spec, LocalSpec):
        return f"{message}; is this machine out of memory or processes?"
    return (
        f"{message}; look at the jobs of the batch system and their logs, or give the jobs longer "
        "to start: worker_timeout_s in the cluster's file"
    )


def _address(client: Client) -> str:
    return str(client.scheduler.address) if client.scheduler else "the scheduler"


def _hint() -> str:
    return "" if importlib.util.find_spec("bokeh") else " (its pages need: pip install bokeh)"
