"""A Dask cluster of real processes, started by hand as a user does, that the tests do harm to.

What a worker computes is counted by an audit hook of its interpreter: it sees every image file
that is opened, without any change to the program.
"""

import multiprocessing
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy as np
import pytest

from stores.reader import StoreReader
from stores.verify import verify_store

HERE = Path(__file__).parent
SHARD_ROWS = 8
PROGRAM = """
import os, sys
sys.path.insert(0, here)  # jobs.py
descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
os.dup2(descriptor, 1)
os.dup2(descriptor, 2)
os.chdir(folder)
exec(before)
from importlib import import_module
import_module("distributed.cli." + program).main(arguments, standalone_mode=False)
"""
OBSERVE = """
import os, signal, sys, time
from pathlib import Path
def _observe(event, arguments):
    if event == "open" and str(arguments[0]).endswith(".png"):
        name = Path(arguments[0]).name
        log = os.open(f"{opened}-{os.getpid()}", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        os.write(log, f"{time.time()} {name}\\n".encode())
        os.close(log)
        first = not os.path.exists(flag)
        exec(on_open, globals() | {"name": name, "first": first})
sys.addaudithook(_observe)
"""


@dataclass
class Cluster:
    """A scheduler and its workers; each is one process."""

    folder: Path
    processes: list[BaseProcess] = field(default_factory=list)
    scheduler: BaseProcess | None = None
    workers: list[BaseProcess] = field(default_factory=list)
    number: int = 0

    @property
    def scheduler_file(self) -> Path:
        return self.folder / f"scheduler-{self.number}.json"

    def start(self, num_workers: int = 2, *, on_open: str = "", before: str = "") -> None:
        """A scheduler and some workers; `on_open` runs in each worker whenever it opens an image.

        Variables of `on_open`: `name` of the file, and `first`, whether nobody set the `flag` yet.
        """
        self.number += 1
        file = str(self.scheduler_file)
        options = ["--port", "0", "--host", "127.0.0.1", "--no-dashboard"]
        self.scheduler = self._run(
            "dask_scheduler", [*options, "--scheduler-file", file], before=before
        )
        wait_until(self.scheduler_file.exists)
        for _ in range(num_workers):
            self.add_worker(on_open=on_open)

    def add_worker(self, *, on_open: str = "", before: str = "") -> BaseProcess:
        """One more worker."""
        options = ["--nthreads", "1", "--no-nanny", "--no-dashboard", "--memory-limit", "0"]
        options += ["--scheduler-file", str(self.scheduler_file), "--host", "127.0.0.1"]
        names = {"opened": self.folder / "opened", "flag": self.folder / "flag"}
        observe = "".join(f"{name} = {str(path)!r}\n" for name, path in names.items())
        observe += f"on_open = {on_open!r}\n{before}\n{OBSERVE}"
        known = self.log.read_text().count("Register worker addr")
        worker = self._run("dask_worker", options, before=observe)
        self.workers.append(worker)
        wait_until(lambda: self.log.read_text().count("Register worker addr") > known)
        return worker

    def _run(self, program: str, arguments: list[str], *, before: str) -> BaseProcess:
        context = multiprocessing.get_context("forkserver")
        names = {
            "program": program,
            "arguments": arguments,
            "before": before,
            "folder": str(self.folder),
            "log": str(self.log),
            "here": str(HERE),
        }
        process = context.Process(target=exec, args=(PROGRAM, names))
        process.start()
        self.processes.append(process)
        return process

    @property
    def log(self) -> Path:
        return self.folder / "cluster.log"

    def wait_until_logged(self, text: str) -> None:
        """Until the scheduler or a worker has written that."""
        wait_until(lambda: text in self.log.read_text())

    def opened(self) -> list[tuple[float, str]]:
        """Time and name of each image that a worker opened."""
        files = self.folder.glob("opened-*")
        lines = [line.split() for file in files for line in file.read_text().splitlines()]
        return [(float(when), name) for when, name in lines]

    def stop(self) -> None:
        """Kill what this cluster started and still runs."""
        for process in self.processes:
            if process.is_alive():
                process.kill()
            process.join()


@pytest.fixture
def cluster(tmp_path, start) -> Iterator[Cluster]:
    """An empty cluster: call its `start`."""
    del start  # has set up the server that processes are forked from
    folder = tmp_path / "cluster"
    folder.mkdir()
    cluster = Cluster(folder)
    yield cluster
    cluster.stop()


@pytest.fixture
def store(tmp_path) -> Path:
    return tmp_path / "reference.store"


@pytest.fixture
def arguments(faces, store) -> tuple[object, ...]:
    """Of a run that makes twelve shards, without naming a cluster."""
    sizes = ("--shard-rows", SHARD_ROWS, "--batch-size", SHARD_ROWS, "--columns", "clip")
    return ("precompute", faces, store, "--models", "avatar", *sizes)


@pytest.fixture(scope="session")
def reference(tmp_path_factory, call, faces) -> Path:
    """The store that one process makes, undisturbed."""
    store = tmp_path_factory.mktemp("reference") / "reference.store"
    sizes = ("--shard-rows", SHARD_ROWS, "--batch-size", SHARD_ROWS, "--columns", "clip")
    call("precompute", faces, store, "--models", "avatar", *sizes)
    return store


@pytest.fixture
def assert_whole(store, reference, cluster) -> Callable[[], None]:
    """The store is that of one undisturbed process, and no committed shard was read again."""

    def check() -> None:
        ours, theirs = StoreReader(store), StoreReader(reference)
        assert ours.keys == theirs.keys
        assert ours.manifest.counts == theirs.manifest.counts
        np.testing.assert_allclose(ours.column("clip"), theirs.column("clip"), rtol=0, atol=1e-5)
        assert verify_store(store, full=True) == []
        committed = {
            record.key: ours._store.layout.entry(number).stat().st_mtime
            for number in ours.manifest.shards
            for record in ours._store.read_inputs(number)
        }
        again = [(name, when) for when, name in cluster.opened() if when > committed[name] + 0.005]
        assert again == []
        assert {name for _, name in cluster.opened()} == committed.keys()

    return check


def wait_until(condition: Callable[[], bool], *, seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)
