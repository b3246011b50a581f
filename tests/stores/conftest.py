"""What the tests of `stores` share: a small run, and ways to have it in another process."""

import importlib.util
import multiprocessing
import sys
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).parent / "write_store.py"


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
def start(shard_format) -> Callable[..., BaseProcess]:
    """Start `exec(code, names)` in a process forked from a clean server that has the imports."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["stores.convert", "stores.sources", "stores.verify"])

    def start_process(code: str, **names: object) -> BaseProcess:
        prelude = (
            "import importlib.util, os, resource, signal, sys\n"
            f"spec = importlib.util.spec_from_file_location('write_store', {str(SCRIPT)!r})\n"
            "run = importlib.util.module_from_spec(spec)\n"
            "spec.loader.exec_module(run)\n"
            f"run.SHARD_FORMAT = {shard_format!r}\n"
        )
        process = context.Process(target=exec, args=(prelude + code, names), daemon=True)
        process.start()
        return process

    return start_process
