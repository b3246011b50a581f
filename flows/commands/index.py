"""`deltaedit index`: the FAISS index and the neighbour graph."""

from typing import Any

import click

from flows.commands.options import DRY_RUN, JSON, PREFECT, STORE, checked, print_result, show_config
from flows.commands.recording import is_recorded, run_flow
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
@PREFECT
@JSON
@DRY_RUN
def command(
    store: StorePath, *, use_prefect: bool, as_json: bool, dry_run: bool, **options: Any
) -> None:
    """Build the exact FAISS index of STORE and its neighbour graph.

    Example: deltaedit index faces.store --neighbours 64
    """
    config = configure(store=store, **options)
    show_config(config)
    if dry_run:
        return
    if is_recorded(use_prefect=use_prefect):
        result = run_flow("index", config)
    else:
        from flows.steps.index import index_store

        result = index_store(config)
    print_result(result, as_json=as_json)


def configure(**options: Any) -> Any:
    """The `IndexConfig` that the options make."""
    from flows.steps.index import IndexConfig

    return checked(IndexConfig, **options)
