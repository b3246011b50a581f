"""`deltaedit store verify`: whether a store is whole."""

import click

from flows.commands.options import JSON, STORE, print_result
from flows.exits import DAMAGED_STORE
from stores.places import StorePath


@click.command()
@STORE
@click.option("--quick", is_flag=True, help="Sizes and structure only, no digests and values.")
@JSON
def command(store: StorePath, *, quick: bool, as_json: bool) -> int:
    """Check STORE against its manifest; exit code 3 where anything is wrong.

    Example: deltaedit store verify faces.store
    """
    from flows.schemas import DIRECTIONS
    from stores.verify import verify_store

    problems = verify_store(store, full=not quick, directions=DIRECTIONS)
    if as_json:
        print_result(
            {"problems": [f"{p.file}: {p.kind}: {p.detail}" for p in problems]}, as_json=True
        )
    else:
        for problem in problems:
            click.echo(f"{problem.file}: {problem.kind}: {problem.detail}")
        found = f"{len(problems)} problems; `deltaedit store repair` sets damage aside"
        click.echo(found if problems else "no problems found")
    return DAMAGED_STORE if problems else 0
