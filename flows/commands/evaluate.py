"""`deltaedit evaluate`: how well a run's mapper fits the held-out split."""

from pathlib import Path
from typing import Any

import click

from flows.commands.options import DRY_RUN, JSON, PREFECT, RUN, checked, print_result, show_config
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
    "--out", type=click.Path(path_type=Path, file_okay=False), help="Folder (default: RUN)."
)
@PREFECT
@JSON
@DRY_RUN
def command(run: Path, *, use_prefect: bool, as_json: bool, dry_run: bool, **options: Any) -> None:
    """Compare predicted and true S differences of held-out pairs, per group of layers.

    Example: deltaedit evaluate faces.run
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

        result = evaluate(config)
    print_result(result, as_json=as_json)


def configure(*, run: Path, out: Path | None, **options: Any) -> Any:
    """The `EvaluateConfig` that the options make."""
    from flows.steps.evaluate import EvaluateConfig

    return checked(EvaluateConfig, run=run, out=out or run, **options)
