"""`deltaedit report`: one HTML page about a store or a run."""

from pathlib import Path

import click


@click.command()
@click.argument("target", type=click.Path(path_type=Path, exists=True))
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), help="Default: TARGET.")
def command(target: Path, out: Path | None) -> None:
    """Write report.html about TARGET, a store or a run: tables and pictures, no network.

    Example: deltaedit report faces.run --out report
    """
    from flows.config import go_offline

    go_offline()
    from flows.steps.report import report

    click.echo(report(target, out or target))
