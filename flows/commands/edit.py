"""`deltaedit edit`: text-driven edits as a labelled grid."""

from pathlib import Path
from typing import Any

import click

from flows.commands.options import DRY_RUN, JSON, RUN, checked, print_result, show_config


@click.command()
@RUN
@click.option("--text", "texts", multiple=True, required=True, help="A target; may be repeated.")
@click.option("--key", "keys", multiple=True, help="A row of the run's store; may be repeated.")
@click.option(
    "--image",
    "images",
    multiple=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="An image file; may be repeated.",
)
@click.option("--neutral", help="The word the targets differ from (default: the domain's).")
@click.option(
    "--strength",
    type=float,
    default=1.0,
    show_default=True,
    help="Multiple of the predicted change; negative for the opposite.",
)
@click.option("--threshold", type=float, help="Relevance mask on the raw direction (0.03).")
@click.option("--top-k", type=int, help="Instead of a threshold: channels that may change.")
@click.option(
    "--method",
    type=click.Choice(["deltaedit"]),
    default="deltaedit",
    show_default=True,
    help="How codes are edited; deltaedit is the run's Delta Mapper.",
)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The picture (PNG).")
@JSON
@DRY_RUN
def command(run: Path, *, out: Path, as_json: bool, dry_run: bool, **options: Any) -> None:
    """Edit rows of the store or image files with the mapper of RUN.

    Example: deltaedit edit faces.run --image me.png --text "face with glasses" --out edit.png
    """
    from flows.config import go_offline

    go_offline()
    from flows.steps.edit import EditConfig, check_edit, edit
    from flows.steps.output import write_config_beside
    from flows.steps.sheets import write_picture

    config = checked(EditConfig, run=run, **options)
    show_config(config)
    check_edit(config)
    if dry_run:
        return
    edits = edit(config)
    write_picture(out, edits.grid)
    write_config_beside(out, config, edits=edits.table)
    print_result({"picture": str(out), "edits": edits.table}, as_json=as_json)
