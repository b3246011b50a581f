"""Evaluate a run: S-space fit on the held-out rows, and edits by text prompt by prompt."""

import itertools
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flows.config import as_jsonable
from flows.steps.edit_comparison import COMPARISON_NAME, compare, find_peers
from flows.steps.edit_files import draw_curve, draw_scores, sample_name
from flows.steps.edit_methods import DELTAEDIT, GLOBAL, choose_method
from flows.steps.edit_pool import EditPool, Setting
from flows.steps.edit_scores import ScoringConfig, score_grid, score_prompts
from flows.steps.output import write_output
from flows.steps.relevance import RELEVANCE
from flows.steps.splits import eval_rows
from flows.steps.train import fit_table, run_store
from pipeline.evaluation import s_space_fit
from pipeline.training import MAPPER_NAME, load_trained
from stores.atomic import make_folder, write_atomic
from stores.blobs import list_blobs
from stores.checksum import sha256_file
from stores.reader import StoreReader
from stores.store import Store

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
    edits: ScoringConfig | None = None
    """What is edited and measured; None for the fit alone."""


def evaluate(
    config: EvaluateConfig, on_progress: Callable[[int, int], None] = lambda _done, _all: None
) -> dict[str, object]:
    """S-space fit per group against the zero predictor, on pairs of held-out rows; then the edits.

    Args:
        config: the run, and what to measure.
        on_progress: called with the prompts done and all prompts.

    Returns:
        ``raw`` and ``scaled`` (channels weighted alike), each with ``all``, ``coarse``, ``medium``
        and ``fine``; with prompts also ``edits`` (means over prompts) and a row a prompt. All of it
        and pictures are written to the output folder.

    Raises:
        CheckpointError: there is no finished run.
        StoreError: the run's store is gone, or holds out too few rows.
        PipelineError: a prompt cannot be used, or a mask is wanted without relevance matrix.
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
    if config.edits is not None:
        result |= _evaluate_edits(config, config.edits, on_progress)
    document = {**_made_from(config), "result": result}
    write_atomic(config.out / RESULT_NAME, json.dumps(document, indent=2).encode())
    return result


def _evaluate_edits(
    config: EvaluateConfig, edits: ScoringConfig, on_progress: Callable[[int, int], None]
) -> dict[str, object]:
    """Measure the edits, and write the table and the pictures."""
    pool = EditPool(config.run, edits.prompts, num_images=edits.num_images, neutral=edits.neutral)
    method = choose_method(edits.method, pool.editor, pool.std)
    peers = find_peers(pool, config.run, edits.compare)
    total = len(edits.prompts) * (1 + bool(edits.strengths) + 2 * len(peers))
    done = itertools.count(1)

    def show() -> None:
        on_progress(next(done), total)

    scores = score_prompts(pool, method, edits.prompts, edits.setting, show)
    settings = [Setting(*each) for each in itertools.product(edits.strengths, edits.thresholds)]
    curve = score_grid(pool, method, edits.prompts, settings, show) if settings else []
    files = draw_scores(scores) | draw_curve(curve)
    for number, row in enumerate(scores.prompts):
        if (name := sample_name(scores, number)) in files:
            row["picture"] = name
    result: dict[str, object] = {
        "reconstruction": pool.reconstruction(),
        "edits": scores.mean,
        "prompts": scores.prompts,
        "curve": curve,
    }
    if peers:
        own = edits.method if edits.method != DELTAEDIT else config.run.name
        found = compare(pool, (own, scores, edits.setting, curve), peers, show)
        result["comparison"] = found.as_dict()
        files[COMPARISON_NAME] = found.picture()
    for name, data in files.items():
        write_output(config.out / name, data)
    return result


def is_evaluated(config: EvaluateConfig) -> bool:
    """Whether the output folder holds the result of these settings for the run's present mapper."""
    document = read_evaluation(config.out)
    return document is not None and document.items() >= _made_from(config).items()


def read_evaluation(folder: Path) -> dict[str, Any] | None:
    """What `evaluate` wrote there: ``config``, digests of what was measured, and ``result``."""
    try:
        return json.loads((folder / RESULT_NAME).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None


def _made_from(config: EvaluateConfig) -> dict[str, object]:
    peers = config.edits.compare if config.edits is not None else ()
    runs = [config.run, *(Path(peer) for peer in peers if peer != GLOBAL)]
    mappers = {str(run): sha256_file(run / MAPPER_NAME) for run in runs}
    return {"config": as_jsonable(config), "mapper_sha256": mappers, **_relevance_digest(config)}


def _relevance_digest(config: EvaluateConfig) -> dict[str, str]:
    """The matrix that edits are masked with, if there are edits and there is one."""
    if config.edits is None:
        return {}
    blob = list_blobs(Store.open(run_store(config.run))).get(RELEVANCE)
    return {} if blob is None else {"relevance_sha256": blob.sha256}
