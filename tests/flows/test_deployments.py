"""Deployments on a real Prefect server, and their runs by a real worker.

What takes long goes on side by side: the worker starts while deployments are looked at, and its two
runs, of which one is cancelled, start together.
"""

import base64
import io
import json
import time
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

import click
import psutil
import pytest
import yaml
from PIL import Image

from stores.reader import StoreReader
from stores.verify import verify_store

pytestmark = pytest.mark.timeout(900)  # ten real processes, on a busy machine, too

FLOWS = ("precompute", "index", "relevance", "train", "evaluate", "full_run")
DEADLINE_S = 240
CODES_ONLY = {"models": "avatar", "columns": ["w_plus", "s"]}


def wait_until(condition, what):
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain until {what}"
        time.sleep(0.2)


@pytest.fixture(scope="module")
def client(prefect_server, tmp_path_factory):
    from flows.config import prepare_prefect

    prepare_prefect()
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.settings import PREFECT_API_URL, PREFECT_HOME, temporary_settings

    home = tmp_path_factory.mktemp("home")
    updates = {PREFECT_API_URL: prefect_server.api_url, PREFECT_HOME: home}
    with temporary_settings(updates=updates), SyncPrefectClient(prefect_server.api_url) as opened:
        yield opened


@pytest.fixture(scope="module")
def deploy(client):  # noqa: ARG001 - sets which server
    """`deltaedit deploy`, in this process, which has Prefect's imports already."""
    from flows.commands.deploy import command

    return lambda *arguments: command.main([*map(str, arguments)], standalone_mode=False)


@pytest.fixture(scope="module")
def run_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("files") / "nightly.yaml"
    entry = {"sources": "sampled:8?seed=1", "store": "a.store", "train": False}
    document = {"defaults": {"precompute": {"models": "avatar"}}, "entries": {"a": entry}}
    path.write_text(yaml.safe_dump(document))
    return path


@pytest.fixture(scope="module")
def deployed(deploy, client):
    """The deployments by flow, as the server knows them."""
    deploy()
    return {flow: client.read_deployment_by_name(f"{flow}/deltaedit") for flow in FLOWS}


@pytest.fixture(scope="module")
def worker(prefect_server, deployed, tmp_path_factory, stop):  # noqa: ARG001 - makes the pool
    """Starts, which takes it a while."""
    log = tmp_path_factory.mktemp("worker") / "worker.log"
    with log.open("w") as output:
        process = prefect_server.start(
            *("prefect", "worker", "start", "--pool", "deltaedit"), stdout=output, stderr=output
        )
        try:
            yield process
        finally:
            stop(process, may_hang=True)


@dataclass(frozen=True)
class Scheduled:
    """A run of `precompute` that the worker starts."""

    id: UUID
    source: str
    store: Path


@pytest.fixture(scope="module")
def scheduled(worker, client, deployed, faces, tmp_path_factory):  # noqa: ARG001 - does the work
    """A run of 1,500 shards, and one of three that shall end well."""

    def schedule(name, source, **config):
        store = tmp_path_factory.mktemp(name) / f"{name}.store"
        config |= {"sources": [source], "store": str(store)}
        run = client.create_flow_run_from_deployment(
            deployed["precompute"].id, parameters={"config": config}
        )
        return Scheduled(run.id, source, store)

    many = schedule("many", "sampled:6000?seed=8", models=CODES_ONLY, shard_rows=4, num_workers=1)
    return many, schedule("faces", str(faces), models={"models": "avatar"}, shard_rows=40)


def state_of(client, run):
    return client.read_flow_run(run.id).state


def artifacts_of(client, run):
    from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId

    chosen = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[run.id]))
    return {artifact.type: artifact for artifact in client.read_artifacts(artifact_filter=chosen)}


def log_of(client, run):
    from prefect.client.schemas.filters import LogFilter, LogFilterFlowRunId

    chosen = LogFilter(flow_run_id=LogFilterFlowRunId(any_=[run.id]))
    return [line.message for line in client.read_logs(log_filter=chosen)]


@pytest.mark.usefixtures("worker")
def test_every_flow_is_deployed_offline_with_a_form_that_takes_no_unknown_key(deployed):
    for deployment in deployed.values():
        assert deployment.work_pool_name == "deltaedit"
        environment = deployment.job_variables["env"]
        assert environment["DO_NOT_TRACK"] == "1"
        assert environment["PREFECT_SERVER_ANALYTICS_ENABLED"] == "false"
        forms = deployment.parameter_openapi_schema["definitions"]
        assert forms
        assert all(form["additionalProperties"] is False for form in forms.values())
        assert all(
            field.get("description")
            for form in forms.values()
            for field in form["properties"].values()
            if "$ref" not in field
        )


def test_the_nightly_schedule_is_there_and_off(deployed):
    (schedule,) = deployed["full_run"].schedules
    assert schedule.schedule.cron == "0 1 * * *"
    assert schedule.active is False


def test_a_run_file_becomes_parameters_that_deploying_again_keeps(
    call, deploy, prefect_server, client, run_file
):
    names = ("PREFECT_API_URL", "PREFECT_HOME")
    before = "\n".join(f"os.environ[{n!r}] = {prefect_server.environment[n]!r}" for n in names)
    call("deploy", run_file, "--schedule", "30 2 * * *", before=before)
    first = client.read_deployment_by_name("full_run/deltaedit")
    deploy()
    again = client.read_deployment_by_name("full_run/deltaedit")
    for deployment in (first, again):
        (entry,) = deployment.parameters["config"]["entries"]
        assert entry["precompute"]["store"] == str(run_file.parent / "a.store")
        assert [(s.schedule.cron, s.active) for s in deployment.schedules] == [("30 2 * * *", True)]


def test_a_schedule_that_is_none_is_refused_before_anything_is_deployed(deploy, client, run_file):
    from prefect.exceptions import ObjectNotFound

    with pytest.raises(click.UsageError, match='Invalid cron string: "at night"'):
        deploy(run_file, "--pool", "never", "--schedule", "at night")
    with pytest.raises(ObjectNotFound):
        client.read_work_pool("never")


def test_the_server_refuses_an_unknown_key_and_makes_no_run(client, deployed):
    from prefect.exceptions import PrefectHTTPStatusError

    with pytest.raises(PrefectHTTPStatusError, match="'shard_row' was unexpected"):
        client.create_flow_run_from_deployment(
            deployed["precompute"].id,
            parameters={
                "config": {"sources": ["x"], "store": "y", "models": CODES_ONLY, "shard_row": 1}
            },
        )


@pytest.fixture(scope="module")
def cancelled(scheduled, client, worker):
    """The long run, cancelled early, and how many shards it has committed."""
    run, _ = scheduled
    marks = run.store / "entries"
    wait_until(lambda: len(list(marks.glob("*.json"))) > 1, "two shards were committed")
    cancel(client, run)
    wait_until(lambda: not is_running(worker, run), "the run's process ended")
    return run, len(list(marks.glob("*.json")))


def test_a_cancelled_run_stops_and_the_command_line_finishes_its_store(cancelled, call):
    run, kept = cancelled
    assert 1 < kept < 1500
    finished = call(
        *("precompute", run.source, run.store, "--models", "avatar", "--columns", "w_plus,s"),
        *("--shard-rows", 4096, "--json"),
    )
    summary = json.loads(finished.out)
    assert (summary["rows"], summary["images_made"]) == (6000, 6000 - 4 * kept)
    assert verify_store(run.store, full=True) == []


def test_a_run_by_the_worker_fills_the_store_and_leaves_its_artifacts(scheduled, client):
    _, run = scheduled
    store = run.store
    wait_until(lambda: state_of(client, run).is_final(), "the run ended")
    assert state_of(client, run).is_completed(), log_of(client, run)
    reader = StoreReader(store)
    counts = reader.manifest.counts
    assert counts.inputs == 96
    artifacts = artifacts_of(client, run)
    assert artifacts["progress"].data == 100
    table = {line["name"]: line["value"] for line in json.loads(artifacts["table"].data)}
    assert table["rows"] == str(len(reader))
    assert float(table["images_per_s"]) > 0
    assert store.as_uri() in artifacts["markdown"].data
    header, _, encoded = artifacts["image"].data.partition(",")
    assert header == "data:image/png;base64"
    with Image.open(io.BytesIO(base64.b64decode(encoded))) as sheet:
        assert sheet.width > 8 * 128
    last = f"precompute of {store}: 96 of 96"
    # The run sends its log in the background, and may be final before its last lines are there.
    wait_until(lambda: last in log_of(client, run), "the log arrived")


def test_a_cancelled_run_is_recorded_as_such(cancelled, client):
    run, _ = cancelled
    # Prefect says so half a minute after the process has ended.
    wait_until(lambda: state_of(client, run).is_final(), "the run was recorded as cancelled")
    assert state_of(client, run).is_cancelled()


def cancel(client, run):
    """What the button in the UI does."""
    from prefect.states import Cancelling

    client.set_flow_run_state(run.id, Cancelling())


def is_running(worker, run):
    """Whether a process of the worker's is at a run."""
    for process in worker.children(recursive=True):
        try:
            if process.environ().get("PREFECT__FLOW_RUN_ID") == str(run.id):
                return True
        except (psutil.NoSuchProcess, psutil.ZombieProcess, psutil.AccessDenied):
            continue
    return False


def test_the_preset_names_every_flow_and_the_clone_has_it_at_its_root():
    root = Path(__file__).parents[2]
    preset = yaml.safe_load((root / "prefect.yaml").read_text())
    entrypoints = {deployment["entrypoint"] for deployment in preset["deployments"]}
    assert entrypoints == {f"flows.{name}.{name}" for name in FLOWS}
    assert (root / "prefect.yaml").samefile(root / "flows" / "presets" / "prefect.yaml")
