"""`deltaedit pairs`: source/target pairs by a policy."""

from dataclasses import asdict
from pathlib import Path

import click

from flows.commands.options import JSON, SEED, SHEET, STORE, checked, print_result, show_config


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
@click.option(
    "--min-similarity",
    type=float,
    default=-1.0,
    show_default=True,
    help="Least CLIP cosine of a pair (nearest and band).",
)
@click.option(
    "--max-similarity",
    type=float,
    default=1.0,
    show_default=True,
    help="Largest CLIP cosine of a pair (nearest and band).",
)
@click.option(
    "--count", type=click.IntRange(min=1), default=16, show_default=True, help="Pairs to draw."
)
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
    from flows.steps.output import write_config_beside, write_output
    from flows.steps.pairs import as_lines, draw_pairs
    from pipeline.pairs import PairConfig

    go_offline()
    config = checked(
        PairConfig,
        policy=policy,
        num_neighbours=num_neighbours,
        min_similarity=min_similarity,
        max_similarity=max_similarity,
        seed=seed,
    )
    resolved = {"store": store, "count": count, "pairs": config}
    show_config(resolved)
    pairs = draw_pairs(store, config, count)
    if as_json:
        print_result({"pairs": [asdict(pair) for pair in pairs]}, as_json=True)
    elif out is None:
        click.echo(as_lines(pairs), nl=False)
    if out is not None:
        write_output(out, as_lines(pairs).encode())
        write_config_beside(out, resolved)
        click.echo(out, err=True)
    if sheet is not None:
        from flows.steps.sheets import pair_sheet, write_picture

        write_picture(sheet, pair_sheet(store, pairs))
        click.echo(sheet, err=True)
