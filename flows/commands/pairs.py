"""`deltaedit pairs`: source/target pairs by a policy."""

from dataclasses import asdict
from pathlib import Path

import click

from flows.commands.options import JSON, SEED, SHEET, STORE, checked


@click.command()
@STORE
@click.option(
    "--policy",
    type=click.Choice(["random", "nearest", "band"]),
    default="random",
    show_default=True,
    help="random is the paper's; nearest draws among the k nearest; band between two similarities.",
)
@click.option("--num-neighbours", type=int, default=16, show_default=True, help="k of nearest.")
@click.option("--min-similarity", type=float, default=-1.0, show_default=True)
@click.option("--max-similarity", type=float, default=1.0, show_default=True)
@click.option("--count", type=click.IntRange(min=1), default=16, show_default=True)
@SEED
@click.option("--out", type=click.Path(path_type=Path), help="Write the pairs as a table here.")
@SHEET
@JSON
def command(
    store: Path,
    policy: str,
    num_neighbours: int,
    min_similarity: float,
    max_similarity: float,
    count: int,
    *,
    seed: int,
    out: Path | None,
    sheet: Path | None,
    as_json: bool,
) -> None:
    """Draw pairs of rows from STORE's training split; the same seed draws the same pairs.

    Example: deltaedit pairs faces.store --policy nearest --count 12 --sheet pairs.png
    """
    from flows.config import go_offline
    from flows.steps.pairs import as_lines, draw_pairs
    from pipeline.pairs import PairConfig
    from stores.atomic import write_atomic

    go_offline()
    config = checked(
        PairConfig,
        policy=policy,
        num_neighbours=num_neighbours,
        min_similarity=min_similarity,
        max_similarity=max_similarity,
        seed=seed,
    )
    pairs = draw_pairs(store, config, count)
    if as_json:
        import json

        click.echo(json.dumps([asdict(pair) for pair in pairs]))
    elif out is None:
        click.echo(as_lines(pairs), nl=False)
    if out is not None:
        write_atomic(out, as_lines(pairs).encode())
        click.echo(out, err=True)
    if sheet is not None:
        from flows.steps.sheets import pair_sheet, write_picture

        write_picture(sheet, pair_sheet(store, pairs))
        click.echo(sheet, err=True)
