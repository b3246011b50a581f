"""`deltaedit export`: a run's mapper as the published code loads it."""

from pathlib import Path

import click

from flows.commands.options import JSON, RUN, print_result


@click.command()
@RUN
@click.argument("out", type=click.Path(path_type=Path, dir_okay=False))
@JSON
def command(run: Path, out: Path, *, as_json: bool) -> None:
    """Write the Delta Mapper of RUN to OUT in the layout of the published net_face.pth.

    The published network has none of the variants of recipe fast: train with --recipe official.
    What the mapper was made from goes into OUT.json, where `deltaedit edit --mapper` finds it.

    Example: deltaedit export faces.run net_face.pth
    """
    from flows.steps.published import export_mapper

    trained = export_mapper(run, out)
    config = trained.config
    result = {"file": str(out), "channels": config.s_dim, "clip_dim": config.clip_dim}
    print_result({**result, "steps": trained.step}, as_json=as_json)
