"""The recorded full run: each stage a task run with artifacts of its own."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from flows.exits import IncompleteError

PROGRAM = Path(sys.executable).with_name("deltaedit")

pytestmark = pytest.mark.timeout(900)

TEXT = """
defaults:
  precompute: {models: avatar, shard-rows: 40, split-eval: 0.25}
  index: {neighbours: 4}
  train: {steps: 20, batch-size: 16}
  evaluate: {pairs: 32}
entries:
  lost: {sources: lost, store: lost.store, train: false, relevance: false}
  faces: {sources: FACES, store: faces.store}
"""


@pytest.fixture
def config(tmp_path, faces):
    from flows.commands.run_file import read_run_file

    path = tmp_path / "night.yaml"
    path.write_text(TEXT.replace("FACES", str(faces)))
    return read_run_file(path)


@pytest.mark.usefixtures("recorded_here")
def test_every_stage_is_a_task_run_and_what_is_missing_fails_the_flow(config):
    from prefect.artifacts import Artifact
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId

    from flows.full_run import full_run

    with pytest.raises(IncompleteError, match="3 of 9 stages are missing") as caught:
        full_run(config)
    summary = caught.value.result
    assert {r.entry for r in summary.missing} == {"lost"}
    table = Artifact.get("full-run-table")
    states = {(line["entry"], line["stage"]): line["state"] for line in json.loads(table.data)}
    assert states["lost", "precompute"] == "failed"
    assert states["faces", "report"] == "done"
    stages = ("precompute", "index", "relevance")
    assert all(Artifact.get(f"faces-{stage}-table") for stage in (*stages, "train", "evaluate"))
    assert Artifact.get("faces-train-progress").data == 100
    assert Artifact.get("faces-train-picture").data.startswith("data:image/png;base64,")
    with get_client(sync_client=True) as client:
        chosen = FlowRunFilter(id=FlowRunFilterId(any_=[table.flow_run_id]))
        assert client.read_flow_run(table.flow_run_id).state.is_failed()
        tasks = {task.name: task.state for task in client.read_task_runs(flow_run_filter=chosen)}
    assert tasks["faces: train"].is_completed()
    assert tasks["lost: precompute"].is_failed()
    assert "lost: index" not in tasks


@pytest.mark.slow
def test_with_prefect_asked_for_a_temporary_server_records_the_run_and_ends_with_it(
    encoded, tmp_path
):
    store = shutil.copytree(encoded, tmp_path / "copy.store")
    home = tmp_path / "home"
    environment = {**os.environ, "PREFECT_HOME": str(home), "OMP_NUM_THREADS": "1"}
    run = subprocess.run(
        [PROGRAM, "index", store, "--neighbours", "3", "--prefect", "--json"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert json.loads(run.stdout)["neighbours"] == 3
    assert (home / "prefect.db").exists()
    left = [p for p in psutil.process_iter() if home_of(p) == str(home)]
    assert not left


def home_of(process):
    """The PREFECT_HOME that a process was started with."""
    try:
        return process.environ().get("PREFECT_HOME")
    except (psutil.AccessDenied, psutil.NoSuchProcess, psutil.ZombieProcess):
        return None
