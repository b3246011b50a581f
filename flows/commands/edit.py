"""`deltaedit edit`: text-driven edits as a labelled grid."""

from pathlib import Path

import click

from flows.commands.options import JSON, RUN, checked, print_result


@click.command()
@RUN
@click.option("--text", "texts", multiple=True, required=True, help="A target; may be repeated.")
@click.option("--key", "keys", multiple=True, help="A row of the run's store; may be repeated.")
@click.option(
    "--image",
    "images",
    multiple=True,
    type=click.Path(exists=True, path_type=Path),
    help="An image file; may be repeated.",
)
@click.option("--neutral", help="The word the targets differ from (default: the domain's).")
@click.option("--strength", type=float, default=1.0, show_default=True)
@click.option("--threshold", type=float, help="Relevance mask on the raw direction (0.03).")
@click.option("--top-k", type=int, help="Instead of a threshold: channels that may change.")
@click.option("--method", type=click.Choice(["deltaedit"]), default="deltaedit", show_default=True)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The picture (PNG).")
@JSON
def command(
    run: Path,
    texts: tuple[str, ...],
    keys: tuple[str, ...],
    images: tuple[Path, ...],
    neutral: str | None,
    strength: float,
    threshold: float | None,
    top_k: int | None,
    *,
    method: str,
    out: Path,
    as_json: bool,
) -> None:
    """Edit rows of the store or image files with the mapper of RUN.

    Example: deltaedit edit faces.run --image me.png --text "face with glasses" --out edit.png
    """
    from flows.config import go_offline

    go_offline()
    from flows.steps.edit import EditConfig, edit
    from flows.steps.sheets import write_picture

    config = checked(
        EditConfig,
        run=run,
        texts=texts,
        keys=keys,
        images=images,
        neutral=neutral,
        strength=strength,
        threshold=threshold,
        top_k=top_k,
        method=method,
    )
    edits = edit(config)
    write_picture(out, edits.grid)
    print_result({"picture": str(out), "edits": edits.table}, as_json=as_json)
