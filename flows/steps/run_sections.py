"""What a page says about a run: edits by text, comparisons, training, alignment.

Shown is what the run's folder holds: `deltaedit evaluate RUN --prompts ...` and
`deltaedit alignment STORE --out RUN` put their results there.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from flows.steps.alignment import ALIGNMENT_NAME
from flows.steps.alignment import RESULT_NAME as ALIGNED_NAME
from flows.steps.edit_comparison import COMPARISON_NAME
from flows.steps.edit_files import TRADEOFF_NAME
from flows.steps.evaluate import RESULT_NAME
from flows.steps.page import ReportPicture, ReportTable, Section, Share
from flows.steps.train import CURVE_NAME, FIT_NAME
from pipeline.errors import CheckpointError

SUCCESS_GOAL, PRESERVATION_GOAL = 0.8, 0.85
"""Shares below are marked in the tables."""
GOALS = {"success": SUCCESS_GOAL, "preservation": PRESERVATION_GOAL}
HEADS = {
    "strength": "strength",
    "threshold": "threshold",
    "rows": "rows",
    "success": "success",
    "preservation": "preservation",
    "clip_score": "CLIP score",
    "directional": "directional",
    "distance": "distance",
    "channels": "channels",
}
"""Measures of edits and the heads of their columns, in order."""
ALIGNED_HEADS = {
    "paired_cosine": "paired cosine",
    "modality_gap": "modality gap",
    "separability": "separability",
    "recall_at_1": "R@1",
}
MEASURES_TEXT = (
    "Success: the attribute reader sees what was asked for on rows that lacked it. Preservation: "
    "every other attribute that can be seen before and after is read as before. CLIP score: cosine "
    "of picture and text; directional: of the change of the picture and the change of the text. "
    "Distance: root mean square change of S in standard deviations."
)


def run_sections(run: Path) -> list[Section]:
    """Everything that a run's folder has to show.

    Raises:
        CheckpointError: the run has not ended.
    """
    training = _training_section(run)
    result = _read(run / RESULT_NAME).get("result", {})
    sections = []
    if "prompts" in result:
        sections += [_edits_section(run, result), *_curve_section(run, result)]
        sections += _comparison_section(run, result)
    return [*sections, training, *_alignment_section(run)]


def _edits_section(run: Path, result: Mapping[str, Any]) -> Section:
    mean, prompts = result["edits"], result["prompts"]
    failed = [row["prompt"] for row in prompts if row.get("success", 1.0) < SUCCESS_GOAL]
    known = [row for row in prompts if "success" in row]
    config = _read(run / RESULT_NAME)["config"]["edits"]
    text = (
        f"{len(prompts)} prompts, all with strength {config['strength']:g} and "
        f"{_mask(config)}, on held-out rows that lack what is asked for. "
    )
    if known:
        text += (
            f"{len(failed)} of {len(known)} prompts succeed on less than {SUCCESS_GOAL:.0%} of "
            "their rows; they are marked. "
        )
    baseline = result.get("reconstruction", {})
    return Section(
        title="Edits by text",
        text=text + MEASURES_TEXT,
        figures={
            **{f"mean {HEADS[n]}": _figure(n, mean[n]) for n in HEADS if n in mean},
            **{f"reconstruction: {name}": _cell(value) for name, value in baseline.items()},
        },
        tables=[_edit_table("prompt", [*prompts, {"prompt": "mean", **mean}])],
        gallery=[
            ReportPicture((run / row["picture"]).read_bytes(), _caption(row))
            for row in prompts
            if "picture" in row and (run / row["picture"]).is_file()
        ],
    )


def _mask(config: Mapping[str, Any]) -> str:
    if config["top_k"] is not None:
        return f"{config['top_k']} channels"
    return "no mask" if config["threshold"] is None else f"threshold {config['threshold']:g}"


def _curve_section(run: Path, result: Mapping[str, Any]) -> list[Section]:
    if not result.get("curve"):
        return []
    picture = run / TRADEOFF_NAME
    text = "Means over all prompts. Choose the strength and the threshold that keep enough."
    return [
        Section(
            title="Strength and threshold",
            text=text,
            pictures=[ReportPicture(picture.read_bytes(), "What is won against what is kept.")]
            if picture.is_file()
            else (),
            tables=[_curve_table(result["curve"])],
        )
    ]


def _curve_table(curve: Sequence[Mapping[str, float]]) -> ReportTable:
    """A line a threshold, a column a strength."""
    names = [name for name in ("success", "preservation") if name in curve[0]]
    names = names or ["clip_score", "distance"]
    cells = {
        (row["threshold"], row["strength"]): " / ".join(_figure(name, row[name]) for name in names)
        for row in curve
    }
    strengths = sorted({strength for _, strength in cells})
    return ReportTable(
        heads=["threshold", *(f"strength {strength:g}" for strength in strengths)],
        lines=[
            [f"{threshold:g}", *(cells[threshold, strength] for strength in strengths)]
            for threshold in sorted({threshold for threshold, _ in cells})
        ],
        caption=f"{' / '.join(HEADS[name] for name in names)}.",
    )


def _comparison_section(run: Path, result: Mapping[str, Any]) -> list[Section]:
    comparison = result.get("comparison")
    if not comparison:
        return []
    picture = run / COMPARISON_NAME
    methods = comparison["methods"]
    return [
        Section(
            title="Compared with",
            text=comparison["text"],
            pictures=[
                ReportPicture(
                    picture.read_bytes(),
                    "Settings that no other one of the same method beats in both.",
                )
            ],
            tables=[
                _edit_table("method", methods),
                *(
                    _by_prompt(measure, methods)
                    for measure in ("success", "preservation", "clip_score")
                    if any(measure in row for row in methods)
                ),
            ],
        )
    ]


def _by_prompt(measure: str, methods: Sequence[Mapping[str, Any]]) -> ReportTable:
    prompts = [row["prompt"] for row in methods[0]["prompts"]]
    lines = [
        [prompt, *(_value(measure, row.get(measure)) for row in rows)]
        for prompt, *rows in zip(prompts, *(m["prompts"] for m in methods), strict=True)
    ]
    return ReportTable(
        heads=["prompt", *(method["method"] for method in methods)],
        lines=lines,
        caption=f"{HEADS[measure]} by prompt, at the settings above.",
    )


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
    rows = [(name, row) for file in files for name, row in _read(file).items()]
    heads = list(dict.fromkeys(measure for _, row in rows for measure in row))
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


def _edit_table(name: str, rows: Sequence[Mapping[str, Any]]) -> ReportTable:
    """Measures of edits; the column `name` comes first."""
    columns = [column for column in HEADS if column != name and any(column in r for r in rows)]
    return ReportTable(
        heads=[name, *(HEADS[column] for column in columns)],
        lines=[
            [row[name], *(_value(column, row.get(column)) for column in columns)] for row in rows
        ],
    )


def _value(measure: str, value: Any) -> object:
    if value is None or value != value:  # noqa: PLR0124 - not a number: the reader knows no such thing
        return "-"
    return Share(value=value, goal=GOALS[measure]) if measure in GOALS else value


def _figure(measure: str, value: float) -> str:
    return f"{value:.1%}" if measure in GOALS else _cell(value)


def _cell(value: float) -> str:
    return f"{value:,.3g}"


def _caption(row: Mapping[str, Any]) -> str:
    parts = [f"{name} {row[name]:.0%}" for name in GOALS if row.get(name, float("nan")) >= 0]
    return ": ".join(part for part in (row["prompt"], ", ".join(parts)) if part)


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
