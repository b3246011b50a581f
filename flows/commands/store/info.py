"""`deltaedit store info`: what is in a store."""

from collections import Counter
from pathlib import Path

import click

from flows.commands.options import JSON, STORE, print_result


@click.command()
@STORE
@JSON
def command(store: Path, *, as_json: bool) -> None:
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
        "pending": counts.pending,
        "shards": len(reader.manifest.shards),
        "bytes": sum(entry.size_bytes for entry in reader.manifest.shards.values()),
        "eval rows": int(reader.eval_mask.sum()),
        "reasons": dict(reasons.most_common()),
        "fingerprints": reader.fingerprints,
    }
    print_result(result, as_json=as_json)
