"""What a page says about edits by text: figures, curves, comparisons with other ways to edit."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from flows.steps.edit_comparison import COMPARISON_NAME
from flows.steps.edit_files import TRADEOFF_NAME
from flows.steps.page import ReportPicture, ReportTable, Section, Share

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
MEASURES_TEXT = (
    "Success: the attribute reader sees what was asked for on rows that lacked it. Preservation: "
    "every other attribute that can be seen before and after is read as before. CLIP score: cosine "
    "of picture and text; directional: of the change of the picture and the change of the text. "
    "Distance: root mean square change of S in standard deviations."
)


def edit_sections(run: Path, evaluation: Mapping[str, Any]) -> list[Section]:
    """Sections about the edits of a run, if any were measured.

    Args:
        run: its folder, where the pictures are.
        evaluation: what `flows.steps.evaluate.read_evaluation` found there.
    """
    result = evaluation["result"]
    if "prompts" not in result:
        return []
    edits = _edits_section(run, result, evaluation["config"]["edits"])
    return [edits, *_curve_section(run, result), *_comparison_section(run, result)]


def _edits_section(run: Path, result: Mapping[str, Any], config: Mapping[str, Any]) -> Section:
    mean, prompts = result["edits"], result["prompts"]
    failed = [row["prompt"] for row in prompts if row.get("success", 1.0) < SUCCESS_GOAL]
    known = [row for row in prompts if "success" in row]
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
        text=text + MEASURES_TEXT + " In the pictures, reconstructions are above, edits below.",
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
    text = (
        "Means over all prompts. Choose the strength and the threshold that keep enough: to the "
        "right more of the rest stays as it was, further up more edits succeed."
    )
    return [
        Section(
            title="Strength and threshold",
            text=text,
            pictures=[
                ReportPicture(
                    picture.read_bytes(), "Success against preservation; one line a threshold."
                )
            ]
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
            text=" ".join([comparison["text"], *(v["text"] for v in comparison["verdicts"])]),
            pictures=[
                ReportPicture(
                    picture.read_bytes(),
                    "Settings that no other one of the same method beats in both.",
                )
            ],
            tables=[
                _edit_table("method", methods),
                *(_lost_table(found) for found in comparison["verdicts"] if found["lost"]),
                *(
                    _by_prompt(measure, methods)
                    for measure in ("success", "preservation", "clip_score")
                    if any(measure in row for row in methods)
                ),
            ],
        )
    ]


def _lost_table(found: Mapping[str, Any]) -> ReportTable:
    """Where the run is behind one method, and what the measures say of the cause."""
    measures = [name for name in found["lost"][0] if name in HEADS]
    return ReportTable(
        heads=["prompt", *(HEADS[name] for name in measures), "what else differs"],
        lines=[
            [
                row["prompt"],
                *(f"{_figure(n, row[n])} / {_figure(n, row[f'other {n}'])}" for n in measures),
                row["cause"],
            ]
            for row in found["lost"]
        ],
        caption=f"Where {found['method']} is ahead, worst first: run / {found['method']}.",
    )


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
