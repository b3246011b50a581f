"""What the tests of `stores` share: a small run, and ways to have it in another process."""

import hashlib
import importlib.util
import sys
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import ModuleType

import pytest

from stores.places import ObjectPath, StorePath, name_below

SCRIPT = Path(__file__).parent / "write_store.py"
NUM_FILES, SHARD_ROWS = 30, 8
RUN = """
os.environ.update(env)
from stores.places import store_path
run.main(source, store_path(url, cache), rows, locked=locked)
"""


def _load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("write_store", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["write_store"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session", autouse=True)
def shard_format(request) -> str:
    """Of the stores that `run` and `start` make; modules parametrise it to have both."""
    return getattr(request, "param", "hdf5")


@pytest.fixture(scope="session")
def run(shard_format) -> ModuleType:
    """The module tests/stores/write_store.py."""
    module = _load(SCRIPT)
    module.SHARD_FORMAT = shard_format
    return module


@pytest.fixture(scope="session")
def start(shard_format, forkserver) -> Callable[..., BaseProcess]:
    """Start `exec(code, names)` in a process forked from a clean server that has the imports."""

    def start_process(code: str, **names: object) -> BaseProcess:
        prelude = (
            "import importlib.util, os, resource, signal, sys\n"
            f"spec = importlib.util.spec_from_file_location('write_store', {str(SCRIPT)!r})\n"
            "run = importlib.util.module_from_spec(spec)\n"
            "spec.loader.exec_module(run)\n"
            f"run.SHARD_FORMAT = {shard_format!r}\n"
        )
        process = forkserver.Process(target=exec, args=(prelude + code, names), daemon=True)
        process.start()
        return process

    return start_process


@pytest.fixture(scope="session")
def source(run, tmp_path_factory):
    return str(run.make_source(tmp_path_factory.mktemp("source"), NUM_FILES))


@pytest.fixture(scope="session")
def reference(run, source, tmp_path_factory):
    """The store that an undisturbed run makes in a folder."""
    path = tmp_path_factory.mktemp("reference") / "a.store"
    run.main(source, path, SHARD_ROWS)
    return path


@pytest.fixture
def bucket(s3, tmp_path):
    return ObjectPath(f"s3://{s3.new_bucket()}", tmp_path / "cache")


@pytest.fixture
def launch(start, s3, source):
    """Start a run in a process of its own."""
    started = []

    def launch_run(path: ObjectPath, source=source, rows=SHARD_ROWS, *, locked=True):
        names = {"source": source, "url": path.url, "cache": path.cache, "rows": rows}
        started.append(start(RUN, **names, locked=locked, env=s3.env))
        return started[-1]

    yield launch_run
    for process in started:
        process.kill()
        process.join()


@pytest.fixture(scope="session")
def digests(run) -> Callable[[StorePath], dict[str, str]]:
    """SHA-256 of every file of a store but its locks and leftovers, wherever it is."""

    def digests_of(path: StorePath) -> dict[str, str]:
        if isinstance(path, Path):
            return run.digests(path)
        return {
            name_below(file, path): hashlib.sha256(file.read_bytes()).hexdigest()
            for file in path.walk_files()
            if not file.parent.name.endswith(".lock")
        }

    return digests_of
