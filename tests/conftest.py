"""Servers for the tests that need one: of processes, a real Prefect server, a local S3.

Tests marked `gpu` are skipped where there is no CUDA device.
"""

import importlib.util
import io
import multiprocessing
import os
import secrets
import socket
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import psutil
import pytest

DEADLINE_S = 240
PRELOADED = [
    "flows.cluster.shards",
    "flows.steps.edit",
    "flows.steps.evaluate",
    "flows.steps.precompute",
    "open_clip",
    "s3fs",
    "stores.convert",
    "stores.formats.hdf5",
    "stores.formats.webdataset",
    "stores.verify",
]
"""What the processes of the tests need; there is one server for all, so one list."""


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("gpu") is None:
        return
    import torch

    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")


@pytest.fixture(scope="session")
def forkserver() -> ForkServerContext:
    """Starts processes that have the imports already, so that each costs what it computes."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    return context


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
def stop_fixture() -> Callable[..., None]:
    """`stop`, for the tests."""
    return stop


def stop(process: psutil.Popen, *, may_hang: bool = False) -> None:
    """End a process that a test started, and see to it that nothing of it is left.

    Args:
        process: what to end.
        may_hang: a worker of Prefect's that is asked to end while it cancels a run may wait for
            ever; it is killed then. Everything else must go when it is asked to.
    """
    family = [process, *process.children(recursive=True)]
    process.terminate()
    _gone, left = psutil.wait_procs(family, timeout=30)
    for survivor in left:
        survivor.kill()
    _gone, immortal = psutil.wait_procs(left, timeout=30)
    assert not immortal, f"still there half a minute after SIGKILL: {immortal}"
    assert may_hang or not left, f"still there half a minute after SIGTERM: {left}"


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


Hook = Callable[[dict[str, Any]], str | None]
"""Sees a request (WSGI); may answer it with an error: `507 QuotaExceeded`."""


class S3Server:
    """An S3 in this process; every request passes a hook first: to look, wait, kill or refuse."""

    def __init__(self) -> None:
        from moto.server import DomainDispatcherApplication, create_backend_app
        from werkzeug.serving import make_server

        self._app = DomainDispatcherApplication(create_backend_app)
        self._server = make_server("127.0.0.1", 0, self._answer, threaded=True)
        self._server.log_startup = lambda: None
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        self.hook: Hook | None = None
        self.env = {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self._server.server_port}",
            "AWS_ACCESS_KEY_ID": "tests",
            "AWS_SECRET_ACCESS_KEY": "tests",
            "AWS_DEFAULT_REGION": "us-east-1",
        }

    def stop(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def new_bucket(self) -> str:
        import fsspec

        bucket = f"tests-{secrets.token_hex(6)}"
        fsspec.filesystem("s3").mkdir(bucket)
        return bucket

    @staticmethod
    def read_half(environ: dict[str, Any]) -> int:
        """Wait for half of a request's body, and leave the whole to be read."""
        half = environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]) // 2)
        environ["wsgi.input"] = io.BufferedReader(_Chained(half, environ["wsgi.input"]))
        return len(half)

    def _answer(self, environ: dict[str, Any], start_response: Callable) -> Any:
        error = self.hook(environ) if self.hook is not None else None
        if error is None:
            return self._app(environ, start_response)
        status, code = error.split()
        start_response(f"{status} {code}", [("Content-Type", "application/xml")])
        return [f"<Error><Code>{code}</Code><Message>{code}</Message></Error>".encode()]


class _Chained(io.RawIOBase):
    def __init__(self, head: bytes, rest: io.RawIOBase) -> None:
        self._head, self._rest = io.BytesIO(head), rest

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        data = self._head.read(len(buffer)) or self._rest.read(len(buffer)) or b""
        buffer[: len(data)] = data
        return len(data)


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3Server]:
    """A local S3 that this process and its children find through their environment."""
    for name in ("moto", "s3fs"):
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"{name} is not installed")
    server = S3Server()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in server.env.items():
            patch.setenv(name, value)
        patch.delenv("AWS_PROFILE", raising=False)
        patch.setenv("AWS_CONFIG_FILE", os.devnull)
        patch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
        yield server
    server.stop()


@pytest.fixture
def s3(s3_server: S3Server) -> Iterator[S3Server]:
    """The same server, without a hook before and after."""
    yield s3_server
    s3_server.hook = None
