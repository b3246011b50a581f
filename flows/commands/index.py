"""`deltaedit index`: the FAISS index and the neighbour graph."""

import re
from typing import Any

import click

from flows.commands.options import (
    DRY_RUN,
    JSON,
    PREFECT,
    STORE,
    checked,
    print_result,
    show_config,
    start_logging,
)
from flows.commands.recording import is_recorded, run_flow
from stores.places import StorePath

_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}


def _budget(_context: click.Context, _parameter: click.Parameter, text: str | None) -> int | None:
    """A number of bytes, such as 500MB."""
    if text is None:
        return None
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?B?)", text.strip().upper())
    if match is None or match[2] not in _UNITS:
        raise click.BadParameter(f"{text!r} is no number of bytes; write 500MB or 2GB")
    return int(float(match[1]) * _UNITS[match[2]])


@click.command()
@STORE
@click.option(
    "--kind",
    type=click.Choice(["auto", "flat", "ivf", "ivf8", "hnsw"]),
    default="auto",
    show_default=True,
    help="flat is exact; ivf looks into the nearest cells, in float16 or (ivf8) 8 bits; hnsw walks "
    "links. auto: flat up to 100,000 rows, then ivf.",
)
@click.option(
    "--memory-budget",
    callback=_budget,
    help="Memory that the index may take, such as 500MB or 2GB (default: no limit).",
)
@click.option(
    "--recall",
    type=float,
    default=0.99,
    show_default=True,
    help="Share of the true 10 nearest to find, measured on a sample of the store.",
)
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
    """Build the FAISS index of STORE and its neighbour graph.

    Run it again after rows were added: the index grows by the new shards. An interrupted run goes
    on where it was.

    Example: deltaedit index faces.store --neighbours 64
    """
    start_logging()
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
