"""`deltaedit demo`: everything, on the bundled avatar world."""

from pathlib import Path

import click

from flows.commands.options import DRY_RUN, SEED, checked, show_config, start_logging


@click.command()
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("demo-out"),
    show_default=True,
    help="Folder for everything that the demo makes.",
)
@click.option(
    "--images",
    type=click.IntRange(min=200),
    default=6000,
    show_default=True,
    help="Avatars to render and encode.",
)
@SEED
@DRY_RUN
def command(out: Path, images: int, seed: int, *, dry_run: bool) -> None:
    """Render avatars, precompute, index, train, evaluate and edit; ends with pictures.

    Example: deltaedit demo --out demo-out
    """
    from flows.config import go_offline

    go_offline()
    start_logging()
    from flows.steps.demo import DemoConfig, demo

    config = checked(DemoConfig, out=out, num_images=images, seed=seed)
    show_config(config)
    if dry_run:
        return
    for path in demo(config):
        click.echo(path)
