"""What the tests of `flows` share: the command line in processes that start fast, a small world.

Processes are forked from a server that has the imports, so that each costs what it computes. They
run the program's own entry point: arguments, signals, output and exit codes are the real ones.
"""

import os
import shutil
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest

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
def start(tmp_path_factory, forkserver) -> Callable[..., Run]:
    """Start `deltaedit ARGUMENTS...`; `before` is Python that the process runs first."""
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
        for file in files:
            file.touch()  # readable at once
        process = forkserver.Process(target=exec, args=(ENTRY, names))
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


@pytest.fixture(scope="session")
def chromium(tmp_path_factory):
    """Real Chromium without a window: `chromium(page, width, *options)` gives its output."""
    program = shutil.which("chromium")
    if program is None:
        pytest.skip("chromium is not installed")
    profile = tmp_path_factory.mktemp("chromium")
    fixed = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
             "--disable-background-networking", f"--user-data-dir={profile}"]  # fmt: skip

    def browse(page: Path, width: int, *options: str, height: int = 2400) -> str:
        command = [program, *fixed, f"--window-size={width},{height}", *options, page.as_uri()]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
        return ended.stdout

    return browse


@pytest.fixture
def asked():
    """A server on a free port, and the paths that it was asked for."""
    paths = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            paths.append(self.path)
            self.send_error(404)

        def log_message(self, *_):
            """Nothing on standard error."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", paths
        server.shutdown()
        thread.join()
