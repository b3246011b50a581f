"""Preflight: what a precompute run would meet, before it starts."""

import shutil
import time
from dataclasses import dataclass
from importlib.metadata import distributions

from flows.config import cache_folder, models_folder, num_cpus
from flows.models import LoadedModels, choose_device, load_models
from flows.schemas import store_schema
from flows.steps.precompute import PrecomputeConfig, open_store, scan
from flows.steps.progress import Stopwatch
from flows.steps.reading import ImageReader
from flows.steps.workplace import describe_models
from pipeline.encoding import encode_sampled, encode_views
from pipeline.errors import PipelineError
from pipeline.models.registry import FoundModel, find_models, model_set
from pipeline.models.weights_file import CONVERSION_PAGE
from stores.cache import cache_bytes
from stores.checksum import sha256_file
from stores.contents import is_store
from stores.errors import StoreError
from stores.places import ObjectPath
from stores.sources import Scan

PROBE_IMAGES = 32
OK, WARNING, PROBLEM = "ok", "warning", "problem"
SPARE_SHARE = 1.1
"""Room asked for beyond the estimate of a store's bytes."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the doctor's report."""

    level: str
    """ok, warning or problem."""
    topic: str
    text: str


def check_machine(models: str | None = None) -> list[Finding]:
    """Device, packages, and which known model files are there.

    Args:
        models: a registered set whose files alone are looked for; default: all.

    Raises:
        WeightsError: there is no such set.
    """
    import torch

    findings = [
        Finding(OK, "processors", str(num_cpus())),
        Finding(OK, "device", choose_device("auto")),
        Finding(OK, "torch", torch.__version__),
    ]
    names = {str(d.metadata["Name"]).lower() for d in distributions()}
    faiss = sorted(n for n in names if n.startswith("faiss"))
    level = OK if len(faiss) == 1 else PROBLEM
    advice = "" if level == OK else "; exactly one of faiss-cpu and faiss-gpu must be installed"
    findings.append(Finding(level, "faiss", f"{', '.join(faiss) or 'missing'}{advice}"))
    cache = cache_folder()
    findings.append(Finding(OK, "cache", f"{cache}: {cache_bytes(cache) / 1e9:.2f} GB"))
    names = {models, model_set(models).clip_name} if models else None
    known = find_models(models_folder())
    return findings + [_check_file(x) for x in known if names is None or x.name in names]


def _check_file(known: FoundModel) -> Finding:
    topic, file = f"model {known.name} {known.file.kind}", known.file
    if known.found:
        digest = sha256_file(known.path) if file.sha256 else None
        if digest == file.sha256:
            return Finding(OK, topic, str(known.path))
        text = f"{known.path}: SHA-256 is {digest}, that of the published file {file.sha256}"
        return Finding(WARNING, topic, f"{text}; use it if it is yours, else download it again")
    text = f"not at {known.path}; from {file.source}"
    pickled = known.path.with_suffix(".pkl")
    if pickled.is_file():
        text = f"{pickled} is a pickle, which is never run; convert it: {CONVERSION_PAGE}"
    return Finding(WARNING, topic, text)


def check_run(config: PrecomputeConfig) -> list[Finding]:
    """Inputs, models, time and bytes of one precompute run; encodes a few images as a probe."""
    try:
        found = scan(config)
        models = load_models(config.models, sampled=config.sampled is not None)
    except (PipelineError, StoreError) as error:
        return [Finding(PROBLEM, "run", str(error))]
    inputs = Finding(
        OK,
        "inputs",
        f"{len(found.items)} to encode, {len(found.rejects)} unreadable, "
        f"{len(found.duplicates)} duplicates",
    )
    return [
        inputs,
        _check_store(config, models),
        _check_disk(config, models, len(found.items)),
        *_check_speed(config, models, found),
    ]


def _check_store(config: PrecomputeConfig, models: LoadedModels) -> Finding:
    if not is_store(config.store):
        return Finding(OK, "store", f"{config.store} will be made")
    try:
        store = open_store(config, describe_models(config, models))
    except StoreError as error:
        return Finding(PROBLEM, "store", str(error))
    counts = store.manifest.counts
    return Finding(OK, "store", f"{config.store} goes on from {counts.inputs} inputs")


def _check_disk(config: PrecomputeConfig, models: LoadedModels, num_items: int) -> Finding:
    schema = store_schema(models.encoders, config.models.columns, config.dtype)
    size_bytes = num_items * schema.row_bytes
    if isinstance(config.store, ObjectPath):
        return Finding(OK, "disk", f"needs {size_bytes / 1e9:.2f} GB in the object store")
    home = next(p for p in (config.store, *config.store.absolute().parents) if p.exists())
    free_bytes = shutil.disk_usage(home).free
    level = OK if free_bytes > SPARE_SHARE * size_bytes else PROBLEM
    text = f"needs {size_bytes / 1e9:.2f} GB, {free_bytes / 1e9:.1f} GB free"
    return Finding(level, "disk", text)


def _check_speed(config: PrecomputeConfig, models: LoadedModels, found: Scan) -> list[Finding]:
    """Time a first batch of the run's own inputs, after a small one that warms the models up."""
    columns, sampled = config.models.columns, config.sampled
    if sampled is not None:

        def encode(count: int) -> int:
            encode_sampled(sampled.seed, range(count), 1.0, models.encoders, columns)
            return count
    else:
        read = ImageReader(encoders=models.encoders, columns=columns, watch=Stopwatch())
        decoded = read(found.items[:PROBE_IMAGES])
        views = [image.views for image in decoded if image.views is not None]
        if not views:
            return [Finding(PROBLEM, "time", f"none of the first {PROBE_IMAGES} inputs is sound")]

        def encode(count: int) -> int:
            encode_views(views[:count], models.encoders, columns)
            return len(views[:count])

    encode(2)
    begin = time.perf_counter()
    rate = encode(PROBE_IMAGES) / (time.perf_counter() - begin)
    minutes = len(found.items) / rate / 60
    return [Finding(OK, "time", f"about {minutes:.1f} min at {rate:.0f} images/s of the models")]
