"""`deltaedit avatars`: pictures with known attributes."""

from pathlib import Path

import click

from flows.commands.options import SEED, start_logging


@click.command()
@click.argument("out", type=click.Path(path_type=Path, file_okay=False))
@click.option("--count", type=click.IntRange(min=1), required=True, help="Number of avatars.")
@SEED
def command(out: Path, count: int, seed: int) -> None:
    """Render avatars into OUT as PNG files, with attributes.jsonl (key, attributes, caption).

    Example: deltaedit avatars faces --count 2000 --seed 0
    """
    from flows.config import num_cpus
    from flows.steps.avatars import write_avatars
    from flows.steps.progress import Progress

    start_logging()
    with Progress("avatars", count, unit="images") as progress:
        listing = write_avatars(
            out, count=count, seed=seed, num_workers=num_cpus(), on_progress=progress.advance
        )
    click.echo(listing)
