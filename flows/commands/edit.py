"""`deltaedit edit`: text-driven edits as a labelled grid."""

from pathlib import Path
from typing import Any

import click

from flows.commands.options import (
    DRY_RUN,
    JSON,
    checked,
    model_file_options,
    print_result,
    show_config,
    take_model_file_options,
)

FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command()
@click.argument("run", required=False, type=click.Path(path_type=Path, file_okay=False))
@click.option("--text", "texts", multiple=True, required=True, help="A target; may be repeated.")
@click.option("--key", "keys", multiple=True, help="A row of the run's store; may be repeated.")
@click.option("--image", "images", multiple=True, type=FILE, help="An image file; repeatable.")
@click.option("--mapper", type=FILE, help="Instead of RUN: a mapper's file, such as net_face.pth.")
@click.option(
    "--relevance", type=FILE, help="A relevance matrix, such as fs3.npy (default: the run's)."
)
@model_file_options
@click.option(
    "--clip-pre",
    type=click.Choice(["official", "box7"]),
    help="CLIP pre-processing (default: the mapper's own; box7 for published files).",
)
@click.option("--neutral", help="The word the targets differ from (default: the domain's).")
@click.option(
    "--strength",
    type=float,
    default=1.0,
    show_default=True,
    help="Multiple of the predicted change; negative for the opposite.",
)
@click.option(
    "--threshold",
    type=float,
    help="Relevance mask on the raw direction (default: 0.03 with --relevance, else none).",
)
@click.option("--top-k", type=int, help="Instead of a threshold: channels that may change.")
@click.option(
    "--method",
    type=click.Choice(["deltaedit"]),
    default="deltaedit",
    show_default=True,
    help="How codes are edited; deltaedit is the Delta Mapper.",
)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The picture (PNG).")
@click.option(
    "--pictures",
    type=click.Path(path_type=Path, file_okay=False),
    help="Also write every picture at its full size into this folder.",
)
@JSON
@DRY_RUN
def command(
    run: Path | None,
    *,
    out: Path,
    pictures: Path | None,
    as_json: bool,
    dry_run: bool,
    **options: Any,
) -> None:
    """Edit image files, or rows of RUN's store, by text; with RUN's mapper or a published one.

    Example: deltaedit edit faces.run --image me.png --text "face with glasses" --out edit.png

    Example: deltaedit edit --mapper net_face.pth --relevance fs3.npy --models ffhq
    --image me.png --text "face with glasses" --out edit.png
    """
    from flows.config import go_offline

    go_offline()
    from flows.steps.edit import EditConfig, edit, prepare_edit, write_pictures
    from flows.steps.editor import Editor
    from flows.steps.output import write_config_beside
    from flows.steps.sheets import write_picture
    from pipeline.editing import PUBLISHED_THRESHOLD

    models = take_model_file_options(options)
    if options["relevance"] and options["threshold"] is None and options["top_k"] is None:
        options["threshold"] = PUBLISHED_THRESHOLD
    config = checked(EditConfig, run=run, models=models, **options)
    show_config(config)
    parts = prepare_edit(config)
    if dry_run:
        return
    edits = edit(config, Editor(parts))
    write_picture(out, edits.grid)
    files = [] if pictures is None else write_pictures(edits, config.texts, pictures)
    write_config_beside(out, config, clip_pre=parts.options.clip_pre, edits=edits.table)
    result = {"picture": str(out), "files": [str(path) for path in files], "edits": edits.table}
    print_result(result, as_json=as_json)
