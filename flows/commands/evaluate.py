"""`deltaedit evaluate`: how well a run's mapper fits the held-out split."""

from pathlib import Path

import click

from flows.commands.options import DRY_RUN, JSON, RUN, checked, print_result, show_config


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
@JSON
@DRY_RUN
def command(run: Path, num_pairs: int, out: Path | None, *, as_json: bool, dry_run: bool) -> None:
    """Compare predicted and true S differences of held-out pairs, per group of layers.

    Example: deltaedit evaluate faces.run
    """
    from flows.config import go_offline

    go_offline()
    from flows.steps.evaluate import EvaluateConfig, evaluate

    config = checked(EvaluateConfig, run=run, out=out or run, num_pairs=num_pairs)
    show_config(config)
    if dry_run:
        return
    print_result(evaluate(config), as_json=as_json)
