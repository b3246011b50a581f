"""`deltaedit report`: one HTML page about a store or a run."""

from pathlib import Path

import click

from flows.commands.options import JSON, STORE_PATH, print_result
from stores.places import StorePath


@click.command()
@click.argument("target", type=STORE_PATH)
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), help="Default: TARGET.")
@JSON
def command(target: StorePath, out: Path | None, *, as_json: bool) -> None:
    """Write report.html about TARGET, a store or a run: tables and pictures, no network.

    Example: deltaedit report faces.run --out report
    """
    from flows.config import go_offline

    go_offline()
    from flows.steps.report import report

    out = out or (target if isinstance(target, Path) else None)
    if out is None:
        raise click.UsageError(f"{target} is no folder on a disk: give --out")
    print_result({"report": str(report(target, out))}, as_json=as_json)
