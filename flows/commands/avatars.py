"""`deltaedit avatars`: pictures with known attributes."""

from pathlib import Path

import click

from flows.commands.options import (
    DRY_RUN,
    JSON,
    SEED,
    print_result,
    show_config,
    start_logging,
)


@click.command()
@click.argument("out", type=click.Path(path_type=Path, file_okay=False))
@click.option("--count", type=click.IntRange(min=1), required=True, help="Number of avatars.")
@SEED
@JSON
@DRY_RUN
def command(out: Path, count: int, seed: int, *, as_json: bool, dry_run: bool) -> None:
    """Render avatars into OUT as PNG files, with attributes.jsonl (key, attributes, caption).

    Example: deltaedit avatars faces --count 2000 --seed 0
    """
    from flows.config import num_cpus

    start_logging()
    config = {"out": out, "count": count, "seed": seed}
    show_config(config)
    if dry_run:
        return
    from flows.steps.avatars import write_avatars
    from flows.steps.output import write_config_beside
    from flows.steps.progress import Progress

    with Progress("avatars", count, unit="images") as progress:
        listing = write_avatars(
            out, count=count, seed=seed, num_workers=num_cpus(), on_progress=progress.advance
        )
    write_config_beside(listing, config)
    print_result({"avatars": count, "listing": str(listing)}, as_json=as_json)
