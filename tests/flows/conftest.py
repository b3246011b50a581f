"""What the tests of `flows` share: the command line in processes that start fast, a small world.

Processes are forked from a server that has the imports, so that each costs what it computes. They
run the program's own entry point: arguments, signals, output and exit codes are the real ones.
"""

import multiprocessing
import os
import socket
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path

import psutil
import pytest

PRELOADED = [
    "flows.cluster.shards",
    "flows.steps.edit",
    "flows.steps.evaluate",
    "flows.steps.precompute",
    "open_clip",
]
ENTRY = """
import os, sys
for descriptor, path in ((1, out), (2, err)):
    os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666), descriptor)
os.chdir(folder)
exec(before)
sys.argv = ["deltaedit", *arguments]
from flows.cli import main
main()
"""
DEADLINE_S = 240


@dataclass
class Run:
    """One process of `deltaedit`."""

    process: BaseProcess
    files: tuple[Path, Path]

    @property
    def out(self) -> str:
        return self.files[0].read_text()

    @property
    def err(self) -> str:
        return self.files[1].read_text()

    def wait(self) -> int:
        """The exit code; minus the signal's number where one killed it."""
        self.process.join(DEADLINE_S)
        assert self.process.exitcode is not None, self.err
        return self.process.exitcode

    def wait_until(self, condition: Callable[[], bool]) -> None:
        """Until `condition` holds; the process must still be running then."""
        deadline = time.monotonic() + DEADLINE_S
        while not condition():
            assert self.process.is_alive(), self.err
            assert time.monotonic() < deadline, self.err
            time.sleep(0.002)


@pytest.fixture(scope="session")
def start(tmp_path_factory) -> Callable[..., Run]:
    """Start `deltaedit ARGUMENTS...`; `before` is Python that the process runs first."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    logs = tmp_path_factory.mktemp("logs")
    numbers = iter(range(10_000))

    def start_process(*arguments: object, folder: Path | None = None, before: str = "") -> Run:
        number = next(numbers)
        files = (logs / f"{number}.out", logs / f"{number}.err")
        names = {
            "arguments": [os.fspath(a) if isinstance(a, Path) else str(a) for a in arguments],
            "folder": str(folder or logs),
            "before": before,
            "out": str(files[0]),
            "err": str(files[1]),
        }
        process = context.Process(target=exec, args=(ENTRY, names))
        process.start()
        return Run(process, files)

    return start_process


@pytest.fixture(scope="session")
def call(start) -> Callable[..., Run]:
    """Run `deltaedit ARGUMENTS...` to its end; the exit code must be `code`."""

    def call_process(*arguments: object, code: int = 0, **options: object) -> Run:
        run = start(*arguments, **options)
        assert run.wait() == code, run.err
        return run

    return call_process


@pytest.fixture(scope="session")
def faces(tmp_path_factory, call) -> Path:
    """A folder of 96 avatars."""
    folder = tmp_path_factory.mktemp("faces") / "faces"
    call("avatars", folder, "--count", 96, "--seed", 5)
    return folder


@pytest.fixture(scope="session")
def encoded(tmp_path_factory, call, faces) -> Path:
    """Their store: six shards, every column, a quarter held out. Not to be changed."""
    store = tmp_path_factory.mktemp("encoded") / "faces.store"
    call("precompute", faces, store, *SMALL_SHARDS, "--split-eval", 0.25)
    return store


SMALL_SHARDS = ("--models", "avatar", "--shard-rows", "16", "--batch-size", "16")


@pytest.fixture(scope="session")
def small_shards() -> tuple[str, ...]:
    """Options of precompute that make many commits out of few images."""
    return SMALL_SHARDS


@dataclass
class PrefectServer:
    """A Prefect server of the tests' own, with its own database."""

    api_url: str
    environment: dict[str, str]
    """For processes that talk to it."""

    def start(self, *arguments: object, **options: object) -> psutil.Popen:
        """Start a program of the virtual environment, such as ``prefect worker start``."""
        program, *rest = map(str, arguments)
        command = [str(Path(sys.executable).with_name(program)), *rest]
        return psutil.Popen(command, env=self.environment, **options)


@pytest.fixture(scope="session", name="stop")
def stop_fixture() -> Callable[[psutil.Popen], None]:
    """`stop`, for the tests."""
    return stop


def stop(process: psutil.Popen) -> None:
    """End a process that a test started, and see to it that nothing of it is left."""
    family = [process, *process.children(recursive=True)]
    process.terminate()
    _gone, left = psutil.wait_procs(family, timeout=30)
    for survivor in left:
        survivor.kill()
    psutil.wait_procs(left, timeout=30)
    assert not left, f"still there half a minute after SIGTERM: {left}"


@pytest.fixture(scope="session")
def prefect_server(tmp_path_factory) -> Iterator[PrefectServer]:
    """A real server on a free port, for the whole session: it takes 10 s and more to start."""
    from flows.config import OFFLINE

    home = tmp_path_factory.mktemp("prefect")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    api_url = f"http://127.0.0.1:{port}/api"
    environment = {
        **os.environ,
        **OFFLINE,
        "PREFECT_HOME": str(home),
        "PREFECT_API_URL": api_url,
        "PREFECT_SERVER_API_PORT": port,
        "PREFECT_WORKER_QUERY_SECONDS": "2",
        "OMP_NUM_THREADS": "1",
    }
    server = PrefectServer(api_url, environment)
    with (home / "server.log").open("w") as output:
        process = server.start(
            *("prefect", "server", "start", "--port", port, "--no-ui"),
            stdout=output,
            stderr=output,
        )
        try:
            wait_for_answer(f"{api_url}/health", process)
            yield server
        finally:
            stop(process)


def wait_for_answer(url: str, process: psutil.Popen) -> None:
    """Until a server answers; it must be running all the while."""
    deadline = time.monotonic() + DEADLINE_S
    while True:
        try:
            with urllib.request.urlopen(url, timeout=5):  # noqa: S310 - our own server
                return
        except OSError:
            assert process.is_running(), f"the server ended while {url} was waited for"
            assert time.monotonic() < deadline, f"no answer from {url}"
            time.sleep(0.2)


@pytest.fixture
def recorded_here(prefect_server, tmp_path) -> Iterator[None]:
    """Flows that the test itself calls are recorded by the server."""
    from flows.config import prepare_prefect

    prepare_prefect()
    from prefect.logging.handlers import APILogHandler
    from prefect.settings import PREFECT_API_URL, PREFECT_HOME, temporary_settings

    updates = {PREFECT_API_URL: prefect_server.api_url, PREFECT_HOME: tmp_path}
    with temporary_settings(updates=updates):
        yield
        APILogHandler.flush()
