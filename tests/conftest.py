"""A real Prefect server for the tests that need one, and the end of what they start."""

import os
import socket
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

DEADLINE_S = 240


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
        APILogHandler().flush()
