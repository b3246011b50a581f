"""`deltaedit store merge`: several stores into one."""

import click

from flows.commands.options import JSON, STORE, STORE_PATH, existing_store, print_result
from stores.places import StorePath


@click.command()
@STORE
@click.argument("others", nargs=-1, required=True, type=STORE_PATH, callback=existing_store)
@click.option("--into", type=STORE_PATH, required=True, help="The merged store.")
@click.option(
    "--keep",
    type=click.Choice(["first"]),
    help="Where rows of one key differ, keep the first store's; otherwise that is refused.",
)
@JSON
def command(
    store: StorePath,
    others: tuple[StorePath, ...],
    into: StorePath,
    keep: str | None,
    *,
    as_json: bool,
) -> None:
    """Put the rows of STORE and OTHERS into one new store; they stay as they are.

    The stores must have the same columns, models, settings and split. Run the same command again
    to go on with a merge that was stopped.

    Example: deltaedit store merge part-0.store part-1.store --into faces.store
    """
    from dataclasses import asdict

    from flows.steps.merge import merge

    report = merge((store, *others), into, keep_first=keep == "first")
    result = {"store": str(into)} | asdict(report.counts)
    result |= {"inputs of the parts": report.inputs, "repeated inputs": report.num_repeated}
    print_result(result | {"different rows": report.different}, as_json=as_json)
