"""`deltaedit store`: what is in a store, and whether it is whole."""

from collections import Counter
from pathlib import Path

import click

from flows.commands.options import JSON, STORE, print_result
from flows.exits import DAMAGED_STORE


@click.group()
def command() -> None:
    """Describe or verify a store.

    Example: deltaedit store info faces.store
    """


@command.command()
@STORE
@JSON
def info(store: Path, *, as_json: bool) -> None:
    """What STORE holds: columns, counts, fingerprints, rejects by reason.

    Example: deltaedit store info faces.store
    """
    from stores.reader import StoreReader

    reader = StoreReader(store)
    counts = reader.manifest.counts
    reasons = Counter(reason for _key, reason, _detail in reader.rejects())
    result = {
        "store": str(store),
        "columns": {c.name: f"{list(c.shape)} {c.dtype}" for c in reader.schema.columns},
        "inputs": counts.inputs,
        "rows": counts.rows,
        "rejects": counts.rejects,
        "duplicates": counts.duplicates,
        "shards": len(reader.manifest.shards),
        "bytes": sum(entry.size_bytes for entry in reader.manifest.shards.values()),
        "eval rows": int(reader.eval_mask.sum()),
        "reasons": dict(reasons.most_common()),
        "fingerprints": reader.fingerprints,
    }
    print_result(result, as_json=as_json)


@command.command()
@STORE
@click.option("--quick", is_flag=True, help="Sizes and structure only, no digests and values.")
@JSON
def verify(store: Path, *, quick: bool, as_json: bool) -> int:
    """Check STORE against its manifest; exit code 3 where anything is wrong.

    Example: deltaedit store verify faces.store
    """
    from stores.verify import verify_store

    problems = verify_store(store, full=not quick)
    if as_json:
        print_result(
            {"problems": [f"{p.file}: {p.kind}: {p.detail}" for p in problems]}, as_json=True
        )
    else:
        for problem in problems:
            click.echo(f"{problem.file}: {problem.kind}: {problem.detail}")
        click.echo(f"{len(problems)} problems" if problems else "no problems found")
    return DAMAGED_STORE if problems else 0
