"""`--cluster local:2`: the same store as in one process, and what the driver says meanwhile."""

import json
import os
import re
import signal
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stores.reader import StoreReader
from stores.verify import verify_store

pytestmark = pytest.mark.timeout(900)  # two processes import torch, on a busy machine slowly

TOLERANCE = 1e-5
"""Of the largest value: batches are the same, but other threads may round the last bits anew."""
WATCHED = """
import os, sys, time
def _watch(event, arguments):
    if event in ("socket.connect", "socket.sendto"):
        log = os.open(peers, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        os.write(log, f"{arguments[1]}\\n".encode())
        os.close(log)
    held = event == "open" and str(arguments[0]).endswith("driver.lock")
    while held and not os.path.exists(seen):
        time.sleep(0.01)
sys.addaudithook(_watch)
"""
"""A driver that notes whom it connects to, and hands out no shard before `seen` is there."""


@dataclass(frozen=True)
class LocalRun:
    """A run with `--cluster local:2`, and what was seen of it while it went on."""

    run: Any
    store: Path
    pages: dict[str, str]
    """HTML of pages of the dashboard, once both workers were on them."""
    peers: list[str]
    """Whom the driver, in which scheduler and dashboard are, connected to."""


def assert_same_store(store, reference):
    ours, theirs = StoreReader(store), StoreReader(reference)
    assert ours.keys == theirs.keys
    assert ours.manifest.counts == theirs.manifest.counts
    assert ours.fingerprints == theirs.fingerprints
    assert list(ours.manifest.shards) == list(theirs.manifest.shards)
    for name in ours.schema.names:
        expected = theirs.column(name)
        atol = TOLERANCE * np.abs(expected).max()
        np.testing.assert_allclose(ours.column(name), expected, rtol=0, atol=atol)
    assert verify_store(store, full=True) == []


@pytest.fixture(scope="module")
def local_run(start, faces, small_shards, tmp_path_factory):
    folder = tmp_path_factory.mktemp("local")
    store, names = folder / "faces.store", {n: str(folder / n) for n in ("peers", "seen")}
    # A relative path and another folder: workers must not depend on where the driver stands.
    arguments = ("precompute", faces.name, store, *small_shards, "--split-eval", 0.25, "--json")
    before = "".join(f"{name} = {path!r}\n" for name, path in names.items()) + WATCHED
    run = start(*arguments, "--cluster", "local:2", folder=faces.parent, before=before)
    run.wait_until(lambda: "dashboard: " in run.err)
    page = re.findall(r"dashboard: (http://127\.0\.0\.1:\d+)/status\n", run.err)[0]
    pages = {}
    for name in ("status", "workers"):
        run.wait_until(lambda url=f"{page}/{name}": len(workers_on(url)) == 2)
        pages[name] = fetched(f"{page}/{name}")
    (folder / "seen").touch()
    assert run.wait() == 0, run.err
    return LocalRun(run, store, pages, (folder / "peers").read_text().splitlines())


def workers_on(url):
    """The workers in the tables and plots of a page, as a browser gets them."""
    from bokeh.client import pull_session
    from bokeh.models import ColumnDataSource

    with pull_session(url=url) as session:
        time.sleep(0.5)  # pages fill themselves a moment after they are opened
        session.pull()
        data = [source.data for source in session.document.select({"type": ColumnDataSource})]
    shown = {
        w for columns in data for w in (*columns.get("address", ()), *columns.get("worker", ()))
    }
    return {worker for worker in shown if str(worker).startswith("tcp://")}


def fetched(url):
    with urllib.request.urlopen(url, timeout=60) as answer:  # noqa: S310 - our own
        return answer.read().decode()


def test_two_local_workers_make_the_store_of_one_process(local_run, call, faces, encoded):
    store = local_run.store
    told = json.loads(local_run.run.out)
    assert (told["shards_made"], told["shards_failed"]) == (6, 0)
    assert told["stage_seconds"]["clip"] > 0
    assert_same_store(store, encoded)
    status = json.loads(call("status", store, "--json").out)
    assert (status["rows"], status["run"]["state"], status["run"]["workers"]) == (96, "done", 2)
    arguments = ("precompute", faces, store, "--models", "avatar", "--split-eval", 0.25, "--json")
    again = json.loads(call(*arguments).out)
    assert (again["shards_made"], again["images_made"]) == (0, 0)


def test_pages_of_the_dashboard_need_nothing_from_elsewhere(local_run):
    assert local_run.pages.keys() == {"status", "workers"}
    for html in local_run.pages.values():
        loaded = re.findall(r'<(?:script|img)[^>]*src="([^"]*)"|<link[^>]*href="([^"]*)"', html)
        sources = [source or sheet for source, sheet in loaded]
        assert any("bokeh.min.js" in source for source in sources)
        assert [source for source in sources if "//" in source] == []


def test_scheduler_and_dashboard_connect_to_this_machine_alone(local_run):
    assert local_run.peers
    elsewhere = [p for p in local_run.peers if not p.startswith(("('127.0.0.1'", "/", "b'/", "'/"))]
    assert elsewhere == []


@pytest.mark.slow
def test_samples_drawn_by_two_local_workers_are_those_of_one_process(call, tmp_path):
    arguments = ("--models", "avatar", "--shard-rows", 8, "--batch-size", 8)
    source = "sampled:40?seed=3&truncation=0.7"
    call("precompute", source, tmp_path / "one" / "z.store", *arguments)
    call("precompute", source, tmp_path / "two" / "z.store", *arguments, "--cluster", "local:2")
    assert_same_store(tmp_path / "two" / "z.store", tmp_path / "one" / "z.store")


@pytest.mark.slow
def test_local_workers_die_with_their_driver(start, call, faces, encoded, small_shards, tmp_path):
    import psutil

    store = tmp_path / "faces.store"
    arguments = ("precompute", faces, store, *small_shards, "--split-eval", 0.25)
    run = start(*arguments, "--cluster", "local:2")
    run.wait_until(lambda: any(store.glob("entries/*.json")))
    started = psutil.Process(run.process.pid).children(recursive=True)
    os.kill(run.process.pid, signal.SIGKILL)
    assert run.wait() == -signal.SIGKILL
    _, alive = psutil.wait_procs(started, timeout=30)
    assert alive == []
    call(*arguments, "--cluster", "local:2")
    assert_same_store(store, encoded)


@pytest.mark.slow
def test_terminated_local_workers_leave_a_store_that_resumes(
    start, call, faces, encoded, small_shards, tmp_path
):
    import psutil

    store = tmp_path / "faces.store"
    arguments = ("precompute", faces, store, *small_shards, "--split-eval", 0.25)
    run = start(*arguments, "--cluster", "local:2")
    run.wait_until(lambda: any(store.glob("entries/*.json")))
    started = psutil.Process(run.process.pid).children(recursive=True)
    begin = time.monotonic()
    run.process.terminate()
    assert run.wait() == 143, run.err
    assert time.monotonic() - begin < 30, "batch systems give about so long"
    _, alive = psutil.wait_procs(started, timeout=30)
    assert alive == []
    assert json.loads(call("status", store, "--json").out)["run"]["state"] == "stopped"
    call(*arguments, "--cluster", "local:2")
    assert_same_store(store, encoded)
