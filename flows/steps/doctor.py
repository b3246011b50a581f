"""Preflight: what a precompute run would meet, before it starts."""

import shutil
import time
from dataclasses import dataclass
from importlib.metadata import distributions

from flows.config import models_folder, num_cpus
from flows.models import choose_device, find_files, load_models
from flows.schemas import store_schema
from flows.steps.precompute import PrecomputeConfig, scan
from flows.steps.reading import read_and_decode
from pipeline.encoding import encode_images
from pipeline.errors import PipelineError
from pipeline.models.registry import find_models
from stores.errors import StoreError

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


def check_machine() -> list[Finding]:
    """Device, packages, and which known model files are there."""
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
    for found in find_models(models_folder()):
        text = f"{found.path}" if found.found else f"not at {found.path}; from {found.file.source}"
        level = OK if found.found else WARNING
        findings.append(Finding(level, f"model {found.name} {found.file.kind}", text))
    return findings


def check_run(config: PrecomputeConfig) -> list[Finding]:
    """Inputs, models, time and bytes of one precompute run; encodes a few images as a probe."""
    findings: list[Finding] = []
    try:
        find_files(config.models)
        found = scan(config)
    except (PipelineError, StoreError) as error:
        return [Finding(PROBLEM, "run", str(error))]
    findings.append(
        Finding(
            OK,
            "inputs",
            f"{len(found.items)} to encode, {len(found.rejects)} unreadable, "
            f"{len(found.duplicates)} duplicates",
        )
    )
    models = load_models(config.models)
    schema = store_schema(models.encoders, config.models.columns)
    size_bytes = len(found.items) * sum(c.row_bytes for c in schema.columns)
    home = next(p for p in (config.store, *config.store.absolute().parents) if p.exists())
    free_bytes = shutil.disk_usage(home).free
    level = OK if free_bytes > SPARE_SHARE * size_bytes else PROBLEM
    findings.append(
        Finding(level, "disk", f"needs {size_bytes / 1e9:.2f} GB, {free_bytes / 1e9:.1f} GB free")
    )
    decoded = [read_and_decode(item) for item in found.items[:PROBE_IMAGES] if item.path]
    pixels = [image.pixels for image in decoded if image.pixels is not None]
    if pixels:
        encode_images(pixels[:2], models.encoders, config.models.columns)
        begin = time.perf_counter()
        encode_images(pixels, models.encoders, config.models.columns)
        rate = len(pixels) / (time.perf_counter() - begin)
        minutes = len(found.items) / rate / 60
        findings.append(
            Finding(OK, "time", f"about {minutes:.1f} min at {rate:.0f} images/s of the models")
        )
    return findings
