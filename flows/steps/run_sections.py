"""What a page says about a run: edits by text, comparisons, training, alignment.

Shown is what the run's folder holds: `deltaedit evaluate RUN --prompts ...` and
`deltaedit alignment SOURCE --out RUN` put their results there.
"""

import json
from pathlib import Path

from flows.steps.alignment import ALIGNMENT_NAME
from flows.steps.alignment import RESULT_NAME as ALIGNED_NAME
from flows.steps.edit_sections import edit_sections
from flows.steps.evaluate import read_evaluation
from flows.steps.page import ReportPicture, ReportTable, Section
from flows.steps.train import CURVE_NAME, FIT_NAME
from pipeline.errors import CheckpointError

ALIGNED_HEADS = {
    "paired_cosine": "paired cosine",
    "modality_gap": "modality gap",
    "separability": "separability",
    "recall_at_1": "R@1",
}


def run_sections(run: Path) -> list[Section]:
    """Everything that a run's folder has to show.

    Raises:
        CheckpointError: the run has not ended.
    """
    training = _training_section(run)
    evaluation = read_evaluation(run)
    edits = edit_sections(run, evaluation) if evaluation is not None else []
    return [*edits, training, *_alignment_section(run)]


def _training_section(run: Path) -> Section:
    try:
        fit = json.loads((run / FIT_NAME).read_text(encoding="utf-8"))
        curve = (run / CURVE_NAME).read_bytes()
    except FileNotFoundError as error:
        raise CheckpointError(
            f"{run} was interrupted before its end; run the same deltaedit train again"
        ) from error
    return Section(
        title="Training",
        text="Fit of the S difference on held-out pairs, in raw codes and with channels "
        "weighted alike (scaled). Explained: share of the zero predictor's error that is gone.",
        figures={
            f"explained, {group} layers": f"{values['explained']:.1%}"
            for group, values in fit["scaled"].items()
        },
        table={
            f"{space}, {group}": values
            for space, groups in fit.items()
            for group, values in groups.items()
        },
        pictures=[ReportPicture(curve, "Held-out error while training.")],
    )


def _alignment_section(run: Path) -> list[Section]:
    """Every comparison in the run's folder: its own store's, and what else was put there."""
    files = sorted(run.glob(f"*-{ALIGNED_NAME}"))
    if not files:
        return []
    rows = [
        (name, row)
        for file in files
        for name, row in json.loads(file.read_text(encoding="utf-8")).items()
    ]
    heads = list(dict.fromkeys(str(measure) for _, row in rows for measure in row))
    drawn = [path for file in files if (path := file.with_name(_picture_of(file))).is_file()]
    return [
        Section(
            title="CLIP space and delta space",
            text="Images and texts lie apart in CLIP space; their differences mix, which is why a "
            "mapper trained on image differences obeys text differences. Paired cosine: of an "
            "image and its text. Modality gap: distance of the means. Separability: share on "
            "their own modality's side of the plane between the means; 0.5 is chance. R@1: images "
            "whose nearest text is their own.",
            tables=[
                ReportTable(
                    heads=["", *(ALIGNED_HEADS.get(head, head) for head in heads)],
                    lines=[[name, *(row.get(head, "") for head in heads)] for name, row in rows],
                )
            ],
            pictures=[ReportPicture(path.read_bytes(), _aligned_caption(path)) for path in drawn],
        )
    ]


def _picture_of(aligned: Path) -> str:
    return aligned.name.removesuffix(ALIGNED_NAME) + ALIGNMENT_NAME


def _aligned_caption(picture: Path) -> str:
    name = picture.name.removesuffix(f"-{ALIGNMENT_NAME}")
    return f"{name}: t-SNE of embeddings (left) and of their differences (right)."
