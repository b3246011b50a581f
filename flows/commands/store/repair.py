"""`deltaedit store repair`: a damaged store made whole from what is left of it."""

import click

from flows.commands.options import DRY_RUN, JSON, STORE_PATH, print_result
from stores.places import StorePath

NUM_NAMED = 5
"""Foreign files that the table for people names."""


@click.command()
@click.argument("store", type=STORE_PATH)
@DRY_RUN
@JSON
def command(store: StorePath, *, dry_run: bool, as_json: bool) -> None:
    """Make STORE whole again: rebuild manifest and commit marks, set damaged shards aside.

    Nothing is deleted: damaged files go to STORE/quarantine with the reason. Afterwards run the
    precompute command again; it computes only what is missing. Every byte is read.

    Example: deltaedit store repair faces.store --dry-run
    """
    from dataclasses import asdict

    from flows.schemas import DIRECTIONS
    from stores.repair import repair_store

    report = repair_store(store, dry_run=dry_run, directions=DIRECTIONS)
    if as_json:
        print_result({"store": str(store), "dry_run": dry_run} | asdict(report), as_json=True)
        return
    aside = [f"{name}: {'; '.join(why)}" for name, why in report.quarantined.items()]
    again = {name: f"{len(keys) or 'all its'} inputs" for name, keys in report.recompute.items()}
    result = {
        "rows": report.rows,
        "rebuilt": report.rebuilt,
        "quarantined": aside,
        "kept without a digest": report.unproven,
        "to compute again": [f"{name}: {what}" for name, what in again.items()],
        "inputs of lost lists": report.num_dropped,
        "left alone": [*report.foreign[:NUM_NAMED], *(["..."] * (len(report.foreign) > NUM_NAMED))],
    }
    print_result(result, as_json=False)
    if dry_run:
        click.echo("nothing was changed")
    elif report.recompute or report.num_dropped:
        click.echo("run the precompute command of this store again to fill the gaps")
