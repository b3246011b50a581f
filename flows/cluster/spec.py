"""What ``--cluster`` names: processes here, a running scheduler, or a cluster to be started."""

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

FORMS = (
    "local:N (processes on this machine), tcp://HOST:PORT or tls://HOST:PORT (a running "
    "scheduler), FILE.json (its scheduler file), or FILE.yaml (a cluster class and its arguments)"
)
LOCAL = "local:"
SCHEMES = ("tcp://", "tls://")
WORKERS_SOON_S = 60.0
"""How long to wait for workers that should be there already."""
WORKERS_QUEUED_S = 3600.0
"""How long to wait for workers that a batch system has to start."""
_PACKAGES = {
    "dask_jobqueue": "pip install 'deltaedit-pipeline[cluster]'",
    "dask_kubernetes": "pip install 'deltaedit-pipeline[cluster]'",
    "dask_cuda": "pip install dask-cuda with the extra of your CUDA version (cu12 or cu13)",
}
_KEYS = ("class", "arguments", "workers", "adapt", "worker_timeout_s")
_ADAPT_KEYS = ("minimum", "maximum")


@dataclass(frozen=True, kw_only=True, slots=True)
class LocalSpec:
    """Processes on this machine, started for the run."""

    num_workers: int
    """How many; on a machine with GPUs they are dealt out in turn."""
    worker_timeout_s: float = WORKERS_SOON_S
    """How long to wait for them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RunningSpec:
    """A scheduler that somebody else started; left running when the work is done."""

    address: str | None = None
    """``tcp://host:port`` or ``tls://host:port``."""
    scheduler_file: Path | None = None
    """The file that ``dask scheduler --scheduler-file`` wrote."""
    worker_timeout_s: float = WORKERS_SOON_S
    """How long to wait for its first worker."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassSpec:
    """A Dask cluster class, started for the run."""

    class_name: str
    """Module and class, for instance ``dask_jobqueue.SLURMCluster``."""
    arguments: Mapping[str, Any] = field(default_factory=dict)
    """Its keyword arguments."""
    num_workers: int | None = None
    """Workers to ask for; None where the number adapts, or the class itself starts them."""
    adapt: Mapping[str, int] | None = None
    """``minimum`` and ``maximum`` of workers that the cluster starts and stops as needed."""
    worker_timeout_s: float = WORKERS_QUEUED_S
    """How long to wait for the first worker."""


ClusterSpec: TypeAlias = LocalSpec | RunningSpec | ClassSpec


def parse_cluster(text: str) -> ClusterSpec:
    """Read what ``--cluster`` names.

    Raises:
        ValueError: it has none of the forms, or the file behind it is wrong; a YAML file's faults
            are named all at once.
    """
    if text.startswith(LOCAL):
        return _parse_local(text)
    if text.startswith(SCHEMES):
        return RunningSpec(address=text)
    path = Path(text)
    if path.suffix not in {".json", ".yaml", ".yml"}:
        raise ValueError(f"cluster: {text!r} is none of {FORMS}")
    if not path.is_file():
        raise ValueError(f"cluster: there is no file {text!r}")
    if path.suffix == ".json":
        return RunningSpec(scheduler_file=path.absolute())
    return _read_class(path)


def _parse_local(text: str) -> LocalSpec:
    count = text.removeprefix(LOCAL)
    if not count.isdecimal() or int(count) < 1:
        raise ValueError(f"cluster: {text!r} must be local:N with N of at least 1")
    return LocalSpec(num_workers=int(count))


def _read_class(path: Path) -> ClassSpec:
    import yaml

    try:
        value = yaml.safe_load(path.read_text())
    except yaml.YAMLError as error:
        raise ValueError(f"cluster: {path} is not YAML: {error}") from error
    if not isinstance(value, dict):
        message = f"cluster: {path} must hold the keys {', '.join(_KEYS)}"
        raise ValueError(message)  # noqa: TRY004 - what the user wrote, not what a caller passed
    wrong = [*_wrong_keys(value), *_wrong_class(value), *_wrong_numbers(value)]
    if wrong:
        raise ValueError(f"cluster: {path}: " + "; ".join(wrong))
    return ClassSpec(
        class_name=value["class"],
        arguments=value.get("arguments") or {},
        num_workers=value.get("workers"),
        adapt=value.get("adapt"),
        worker_timeout_s=float(value.get("worker_timeout_s", WORKERS_QUEUED_S)),
    )


def _wrong_keys(value: Mapping[str, Any]) -> list[str]:
    return [
        f"unknown key {key!r}, not one of {', '.join(_KEYS)}" for key in value.keys() - {*_KEYS}
    ]


def _wrong_class(value: Mapping[str, Any]) -> list[str]:
    wrong = []
    name = value.get("class")
    if not isinstance(name, str) or "." not in name:
        example = "dask_jobqueue.SLURMCluster"
        wrong.append(f"class must name a module and a class, such as {example}; got {name!r}")
    else:
        package = name.partition(".")[0]
        if importlib.util.find_spec(package) is None:
            remedy = _PACKAGES.get(package, "install it beside deltaedit")
            wrong.append(f"class {name}: the package {package} is not installed: {remedy}")
    arguments = value.get("arguments")
    if arguments is not None and not isinstance(arguments, dict):
        wrong.append(f"arguments must be a mapping of names to values, got {arguments!r}")
    return wrong


def _wrong_numbers(value: Mapping[str, Any]) -> list[str]:
    wrong = []
    workers, adapt = value.get("workers"), value.get("adapt")
    if workers is not None and not _is_count(workers, 1):
        wrong.append(f"workers must be a whole number of at least 1, got {workers!r}")
    if workers is not None and adapt is not None:
        wrong.append("workers and adapt exclude each other: a fixed number, or one that adapts")
    if adapt is not None:
        wrong += _wrong_adapt(adapt)
    timeout_s = value.get("worker_timeout_s", WORKERS_QUEUED_S)
    if isinstance(timeout_s, bool) or not isinstance(timeout_s, int | float) or timeout_s <= 0:
        wrong.append(f"worker_timeout_s must be a positive number of seconds, got {timeout_s!r}")
    return wrong


def _wrong_adapt(adapt: object) -> list[str]:
    if not isinstance(adapt, dict) or adapt.keys() - {*_ADAPT_KEYS} or "maximum" not in adapt:
        return [f"adapt must be {{minimum: N, maximum: M}}, got {adapt!r}"]
    least, most = adapt.get("minimum", 0), adapt["maximum"]
    if not _is_count(least, 0) or not _is_count(most, 1) or least > most:
        return [f"adapt needs whole numbers 0 <= minimum <= maximum and 1 <= maximum, got {adapt}"]
    return []


def _is_count(value: object, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least
