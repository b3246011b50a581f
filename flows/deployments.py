"""The flows as deployments of a Prefect server: `deltaedit deploy`."""

import importlib
from collections.abc import Mapping
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import yaml

from flows.config import as_jsonable, prepare_prefect

prepare_prefect()

from prefect.client.orchestration import get_client  # noqa: E402 - its defaults come first
from prefect.client.schemas.actions import DeploymentScheduleCreate, WorkPoolCreate  # noqa: E402
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound  # noqa: E402
from prefect.schedules import Cron, Schedule  # noqa: E402
from prefect.types.entrypoint import EntrypointType  # noqa: E402
from prefect.workers.process import ProcessWorker  # noqa: E402

from flows.full_run import full_run  # noqa: E402
from flows.steps.full_run import FullRunConfig  # noqa: E402

if TYPE_CHECKING:
    from prefect.client.schemas.responses import DeploymentResponse

PRESET = "prefect.yaml"


def deploy(
    *, pool: str | None = None, cron: str | None = None, config: FullRunConfig | None = None
) -> list[str]:
    """Register every flow, and make the work pool if it is not there.

    Parameters and schedules that deployments have already, such as those edited in the UI, stay
    unless they are given.

    Args:
        pool: a process work pool; that of the preset if not given.
        cron: when `full_run` runs, in UTC; switches its schedule on.
        config: what `full_run` does, as the parameters that the UI then shows.

    Returns:
        The deployments as ``flow/name``.

    Raises:
        ValueError: `cron` is no cron line.
    """
    preset = yaml.safe_load(files("flows").joinpath("presets", PRESET).read_text(encoding="utf-8"))
    nightly = [Cron(cron, timezone="UTC")] if cron is not None else []
    deployed = []
    for wanted in preset["deployments"]:
        module, _, name = wanted["entrypoint"].rpartition(".")
        flow = getattr(importlib.import_module(module), name)
        full_name = f"{flow.name}/{wanted['name']}"
        former = _deployed(full_name)
        given = {"config": as_jsonable(config)} if flow is full_run and config else None
        deployment = flow.to_deployment(
            name=wanted["name"],
            description=wanted["description"],
            tags=wanted["tags"],
            schedules=nightly if flow is full_run and nightly else _schedules(wanted, former),
            parameters=given or (former.parameters if former else None),
            job_variables=wanted["work_pool"]["job_variables"],
            entrypoint_type=EntrypointType.MODULE_PATH,
        )
        pool_name = pool or wanted["work_pool"]["name"]
        _make_pool(pool_name)
        deployment.apply(work_pool_name=pool_name)
        deployed.append(full_name)
    return deployed


def _deployed(full_name: str) -> "DeploymentResponse | None":
    """What the server has under that name."""
    with get_client(sync_client=True) as client:
        try:
            return client.read_deployment_by_name(full_name)
        except ObjectNotFound:
            return None


def _schedules(
    wanted: Mapping[str, Any], former: "DeploymentResponse | None"
) -> list[Schedule | DeploymentScheduleCreate]:
    """Those that the server has, else those of the preset."""
    if former is None:
        return [
            Cron(line["cron"], timezone=line["timezone"], active=line["active"])
            for line in wanted.get("schedules", ())
        ]
    names = {"schedule", "active", "max_scheduled_runs", "parameters", "slug"}
    return [
        DeploymentScheduleCreate(**{name: getattr(schedule, name) for name in names})
        for schedule in former.schedules
    ]


def _make_pool(name: str) -> None:
    template = ProcessWorker.get_default_base_job_template()
    pool = WorkPoolCreate(name=name, type="process", base_job_template=template)
    with get_client(sync_client=True) as client:
        try:
            client.create_work_pool(pool)
        except ObjectAlreadyExists:
            return
