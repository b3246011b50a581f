"""Evaluate a run: S-space fit on the held-out rows."""

import json
from dataclasses import dataclass
from pathlib import Path

from flows.config import as_jsonable
from flows.steps.splits import eval_rows
from flows.steps.train import fit_table, run_store
from pipeline.evaluation import s_space_fit
from pipeline.training import MAPPER_NAME, load_trained
from stores.atomic import make_folder, write_atomic
from stores.checksum import sha256_file
from stores.reader import StoreReader

RESULT_NAME = "evaluation.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluateConfig:
    """One evaluation."""

    run: Path
    """A finished training run."""
    out: Path
    """Folder for ``evaluation.json``."""
    num_pairs: int = 2048
    """Held-out pairs that the fit is averaged over."""


def evaluate(config: EvaluateConfig) -> dict[str, object]:
    """S-space fit per group against the zero predictor, on pairs of held-out rows.

    Returns:
        ``raw`` and ``scaled`` (channels weighted alike), each with ``all``, ``coarse``, ``medium``
        and ``fine``; also written to the output folder.

    Raises:
        CheckpointError: there is no finished run.
        StoreError: the run's store is gone, or holds out too few rows.
    """
    reader = StoreReader(run_store(config.run))
    trained = load_trained(config.run / MAPPER_NAME)
    rows = eval_rows(reader)
    fit = s_space_fit(trained, reader, rows, num_pairs=config.num_pairs)
    result: dict[str, object] = {"eval rows": len(rows)}
    for space, groups in fit_table(fit).items():
        for group, values in groups.items():
            rounded = {name: round(value, 4) for name, value in values.items()}
            result[f"{space} {group}"] = rounded
    make_folder(config.out)
    document = {**_made_from(config), "result": result}
    write_atomic(config.out / RESULT_NAME, json.dumps(document, indent=2).encode())
    return result


def is_evaluated(config: EvaluateConfig) -> bool:
    """Whether the output folder holds the result of these settings for the run's present mapper."""
    try:
        document = json.loads((config.out / RESULT_NAME).read_text(encoding="utf-8"))
        return document.items() >= _made_from(config).items()
    except FileNotFoundError:
        return False


def _made_from(config: EvaluateConfig) -> dict[str, object]:
    return {
        "config": as_jsonable(config),
        "mapper_sha256": sha256_file(config.run / MAPPER_NAME),
    }
