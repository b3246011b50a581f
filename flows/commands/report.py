"""`deltaedit report`: one HTML page about a store or a run."""

from pathlib import Path

import click

from flows.commands.options import JSON, print_result


@click.command()
@click.argument("target", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), help="Default: TARGET.")
@JSON
def command(target: Path, out: Path | None, *, as_json: bool) -> None:
    """Write report.html about TARGET, a store or a run: tables and pictures, no network.

    Example: deltaedit report faces.run --out report
    """
    from flows.config import go_offline

    go_offline()
    from flows.steps.report import report

    print_result({"report": str(report(target, out or target))}, as_json=as_json)
