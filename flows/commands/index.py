"""`deltaedit index`: the FAISS index and the neighbour graph."""

import click

from flows.commands.options import DRY_RUN, JSON, STORE, checked, print_result, show_config
from stores.places import StorePath


@click.command()
@STORE
@click.option("--kind", type=click.Choice(["auto", "flat"]), default="auto", show_default=True)
@click.option(
    "--neighbours",
    type=click.IntRange(min=0),
    default=64,
    show_default=True,
    help="Neighbours kept per row in neighbours.h5.",
)
@JSON
@DRY_RUN
def command(store: StorePath, kind: str, neighbours: int, *, as_json: bool, dry_run: bool) -> None:
    """Build the exact FAISS index of STORE and its neighbour graph.

    Example: deltaedit index faces.store --neighbours 64
    """
    from flows.steps.index import IndexConfig, index_store

    config = checked(IndexConfig, store=store, kind=kind, neighbours=neighbours)
    show_config(config)
    if not dry_run:
        print_result(index_store(config), as_json=as_json)
