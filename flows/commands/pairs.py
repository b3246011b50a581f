"""`deltaedit pairs`: source/target pairs by a policy."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from flows.commands.options import (
    JSON,
    SEED,
    SHEET,
    STORE,
    pair_options,
    print_result,
    show_config,
    take_pair_config,
)
from stores.places import StorePath


@click.command()
@STORE
@pair_options
@click.option(
    "--count", type=click.IntRange(min=1), default=16, show_default=True, help="Pairs to draw."
)
@SEED
@click.option("--out", type=click.Path(path_type=Path), help="Write the pairs as a table here.")
@SHEET
@JSON
def command(
    store: StorePath,
    *,
    count: int,
    seed: int,
    out: Path | None,
    sheet: Path | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Draw pairs of rows from STORE's training split; the same seed draws the same pairs.

    Policies mix by weight: --policy random:0.7,nearest:0.3. Policy direction ranks pairs by how
    well their CLIP difference follows that of two texts while all else stays put.

    Example: deltaedit pairs faces.store --policy direction --to "face with sunglasses" --count 12
    --sheet pairs.png
    """
    from flows.config import go_offline
    from flows.steps.output import write_config_beside, write_output
    from flows.steps.pairs import as_lines, draw_pairs
    from stores.reader import StoreReader

    go_offline()
    config = take_pair_config(options, store=store, seed=seed)
    rows_of = StoreReader(store).manifest.digest
    resolved = {"store": store, "rows_of": rows_of, "count": count, "pairs": config}
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
