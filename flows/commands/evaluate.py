"""`deltaedit evaluate`: how well a run's mapper fits the held-out split."""

from pathlib import Path
from typing import Any

import click

from flows.commands.options import (
    DRY_RUN,
    JSON,
    PREFECT,
    RUN,
    aligned,
    print_result,
    show_config,
)
from flows.commands.problems import Checks
from flows.commands.recording import is_recorded, run_flow


@click.command()
@RUN
@click.option(
    "--pairs",
    "num_pairs",
    type=click.IntRange(min=1),
    default=2048,
    show_default=True,
    help="Held-out pairs to average over.",
)
@click.option(
    "--prompts",
    help="Edit by text, too: a file with one prompt a line, or `standard` for the avatar world's.",
)
@click.option(
    "--images",
    "num_images",
    type=click.IntRange(min=1),
    default=48,
    show_default=True,
    help="Held-out rows per prompt.",
)
@click.option("--neutral", help="The word the prompts differ from (default: the domain's).")
@click.option(
    "--method", type=click.Choice(["deltaedit", "global"]), default="deltaedit", show_default=True
)
@click.option("--strength", type=float, default=1.0, show_default=True, help="For all prompts.")
@click.option("--threshold", type=float, help="Relevance mask, for all prompts (default: none).")
@click.option("--top-k", type=int, help="Instead of a threshold: channels that may change.")
@click.option(
    "--curves", is_flag=True, help="Measure every prompt at several strengths and thresholds."
)
@click.option(
    "--compare",
    multiple=True,
    metavar="METHOD|RUN",
    help="Measure another way to edit where it preserves as much: `global`, or another run of the "
    "same store. Takes the curves, too; may be given several times.",
)
@click.option(
    "--out", type=click.Path(path_type=Path, file_okay=False), help="Folder (default: RUN)."
)
@PREFECT
@JSON
@DRY_RUN
def command(run: Path, *, use_prefect: bool, as_json: bool, dry_run: bool, **options: Any) -> None:
    """Compare predicted and true S differences of held-out pairs, per group of layers.

    With --prompts, held-out rows are edited by every prompt: CLIP score, directional similarity,
    distance moved; on avatars also how many edits succeeded, and how much else stayed as it was.

    Example: deltaedit evaluate faces.run --prompts prompts.txt --threshold 0.05
    """
    from flows.config import go_offline

    go_offline()
    config = configure(run=run, **options)
    show_config(config)
    if dry_run:
        return
    if is_recorded(use_prefect=use_prefect):
        result = run_flow("evaluate", config)
    else:
        from flows.steps.evaluate import evaluate

        result = evaluate(config, _show)
    print_result(result if as_json else _for_people(result), as_json=as_json)


def configure(
    *,
    run: Path,
    out: Path | None,
    prompts: str | None,
    curves: bool,
    compare: tuple[str, ...],
    num_pairs: int,
    **editing: Any,
) -> Any:
    """The `EvaluateConfig` that the options make."""
    from flows.steps.edit_methods import GLOBAL
    from flows.steps.edit_scores import STRENGTHS, THRESHOLDS, ScoringConfig
    from flows.steps.evaluate import EvaluateConfig

    checks, edits = Checks(), None
    if prompts is None:
        checks.part(_refuse_edits, curves or compare)
    else:
        peers = tuple(peer if peer == GLOBAL else str(Path(peer).absolute()) for peer in compare)
        grid = {"strengths": STRENGTHS, "thresholds": THRESHOLDS} if curves or compare else {}
        read = checks.part(_read_prompts, prompts)
        # The file's name stands in for prompts that cannot be read: the rest is checked, too.
        texts = (prompts,) if read is None else read
        edits = checks.part(ScoringConfig, prompts=texts, compare=peers, **grid, **editing)
    return checks.whole(EvaluateConfig, run=run, out=out or run, num_pairs=num_pairs, edits=edits)


def _refuse_edits(wanted: object) -> None:
    if wanted:
        raise click.UsageError("--curves and --compare measure edits: give --prompts, too")


def _read_prompts(prompts: str) -> tuple[str, ...]:
    from pipeline.demo.prompts import PROMPTS

    if prompts == "standard":
        return PROMPTS
    try:
        lines = Path(prompts).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise click.UsageError(
            f"--prompts {prompts}: {error}. Give a text file with one prompt a line, or `standard`"
        ) from error
    return tuple(line.strip() for line in lines if line.strip() and not line.startswith("#"))


def _for_people(result: dict[str, Any]) -> dict[str, Any]:
    """Tables in place of rows; what each method made of each prompt is in the files."""
    tables = {
        name: aligned(_without(result[name], "picture"))
        for name in ("prompts", "curve")
        if result.get(name)
    }
    if "comparison" in result:
        found = result["comparison"]
        tables["comparison"] = [
            *aligned(_without(found["methods"], "prompts")),
            *(each["text"] for each in found["verdicts"]),
        ]
    return {name: tables.get(name, value) for name, value in result.items() if value != []}


def _without(rows: list[dict[str, Any]], column: str) -> list[dict[str, Any]]:
    return [{name: value for name, value in row.items() if name != column} for row in rows]


def _show(done: int, total: int) -> None:
    click.echo(f"{done} of {total} prompts", err=True)
