"""`deltaedit alignment`: how CLIP space and delta space align."""

from pathlib import Path
from typing import Any

import click

from flows.commands.options import JSON, checked, print_result, show_config


@click.command()
@click.argument("source", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option(
    "--captions",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="For a store: JSON lines with key and caption.",
)
@click.option(
    "--points",
    "num_points",
    type=int,
    default=1000,
    show_default=True,
    help="Rows of each modality in the pictures; their time grows with it.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder for NAME-alignment.json and the t-SNE pictures; give a run's to see them in its "
    "report.",
)
@JSON
def command(source: Path, *, as_json: bool, **options: Any) -> None:
    """Compare images and texts in CLIP space with their differences (DeltaEdit, figure 2).

    SOURCE is a folder of cspace_NAME_{i,t,deltai,deltat}.npy, as published with DeltaEdit, or a
    store, whose images are paired with --captions.

    Example: deltaedit alignment faces.store --captions faces/attributes.jsonl --out alignment
    """
    from flows.config import go_offline

    go_offline()
    from flows.steps.alignment import AlignConfig, align_source, as_table

    config = checked(AlignConfig, source=source, **options)
    show_config(config)
    print_result(as_table(align_source(config)), as_json=as_json)
