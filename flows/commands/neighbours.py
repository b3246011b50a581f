"""`deltaedit neighbours`: nearest rows of a key, an image or a text."""

from dataclasses import asdict
from pathlib import Path

import click

from flows.commands.options import JSON, SHEET, STORE, print_result
from stores.places import StorePath


@click.command()
@STORE
@click.option("--key", help="A key of the store.")
@click.option(
    "--image", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="An image file."
)
@click.option("--text", help="A text, for example 'face with glasses'.")
@click.option(
    "-k", "count", type=click.IntRange(min=1), default=8, show_default=True, help="Rows to show."
)
@SHEET
@JSON
def command(
    store: StorePath,
    key: str | None,
    image: Path | None,
    text: str | None,
    count: int,
    *,
    sheet: Path | None,
    as_json: bool,
) -> None:
    """Show the rows of STORE whose CLIP embeddings are nearest to a key, an image or a text.

    Example: deltaedit neighbours faces.store --text "face with glasses" -k 8 --sheet near.png
    """
    from flows.config import go_offline

    go_offline()
    if sum(query is not None for query in (key, image, text)) != 1:
        raise click.UsageError("give exactly one of --key, --image and --text")
    from flows.steps.index import find_neighbours, query_vector

    vector = query_vector(store, key=key, image=image, text=text)
    found = find_neighbours(store, vector, count)
    if as_json:
        print_result({"neighbours": [asdict(neighbour) for neighbour in found]}, as_json=True)
    else:
        for neighbour in found:
            click.echo(f"{neighbour.similarity:.4f}  {neighbour.key}")
    if sheet is not None:
        from flows.steps.sheets import neighbour_sheet, write_picture

        title = key or (image.name if image else None) or text or ""
        write_picture(sheet, neighbour_sheet(store, [(title, found)]))
        click.echo(sheet, err=True)
