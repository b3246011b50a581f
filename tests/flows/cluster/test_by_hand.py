"""The commands of docs/cluster.md, "A scheduler and workers by hand", one by one."""

import json
import re
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from stores.reader import StoreReader

PAGE = Path(__file__).parents[3] / "docs" / "cluster.md"
TITLE = "## A scheduler and workers by hand"
PROGRAMS = Path(sys.executable).parent


def commands(folder: Path) -> list[list[str]]:
    """The page's commands, with its folder, port and images replaced by the test's."""
    section = PAGE.read_text().split(TITLE)[1].split("\n## ")[0]
    blocks = re.findall(r"```\n(.*?)```", section, flags=re.DOTALL)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    lines = "".join(blocks).replace("/data", str(folder)).replace("8786", port).splitlines()
    return [line.split() for line in lines]


@pytest.mark.slow
def test_the_page_is_true_command_by_command(faces, encoded, tmp_path):
    shutil.copytree(faces, tmp_path / "faces")
    scheduler, *workers, precompute, status = commands(tmp_path)
    assert len(workers) == 2
    started = []
    try:
        for command in (scheduler, *workers):
            started.append(subprocess.Popen([PROGRAMS / command[0], *command[1:]], cwd=tmp_path))
            deadline = time.monotonic() + 60
            while not (tmp_path / "scheduler.json").exists():
                assert time.monotonic() < deadline
                time.sleep(0.1)
        run = [PROGRAMS / precompute[0], *precompute[1:], "--shard-rows", "16", "--json"]
        done = subprocess.run(run, cwd=tmp_path, capture_output=True, text=True, check=True)
        assert json.loads(done.stdout)["shards_made"] == 6
        shown = [PROGRAMS / status[0], *status[1:]]
        told = subprocess.run(shown, cwd=tmp_path, capture_output=True, text=True, check=True)
        assert "6 of 6 done, 0 failed" in told.stdout
        assert all(process.poll() is None for process in started), "the run must leave them running"
    finally:
        for process in reversed(started):
            process.terminate()
        for process in started:
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
    ours, theirs = StoreReader(tmp_path / "faces.store"), StoreReader(encoded)
    assert ours.keys == theirs.keys
    expected = theirs.column("s")
    np.testing.assert_allclose(
        ours.column("s"), expected, rtol=0, atol=1e-5 * np.abs(expected).max()
    )
