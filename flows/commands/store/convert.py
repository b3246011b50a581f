"""`deltaedit store convert`: a store in another format or precision."""

from pathlib import Path

import click

from flows.commands.options import (
    DRY_RUN,
    JSON,
    STORE,
    dtype_option,
    format_option,
    print_result,
    start_logging,
)


@click.command()
@STORE
@click.argument("out", type=click.Path(path_type=Path))
@format_option(show_default="that of STORE")
@dtype_option(show_default="as in STORE")
@JSON
@DRY_RUN
def command(
    store: Path,
    out: Path,
    shard_format: str | None,
    dtype: str | None,
    *,
    as_json: bool,
    dry_run: bool,
) -> None:
    """Write STORE into the folder OUT in another format or precision.

    Keys, rows, rejects, inputs, split and fingerprints stay the same. Blobs made from the rows
    (index, neighbours, relevance) are left out: make them again from OUT. Only going from float32
    to float16 loses anything. Run the same command again to resume.

    Example: deltaedit store convert faces.store faces-tar.store --format webdataset
    """
    if shard_format is None and dtype is None:
        raise click.UsageError("nothing to convert to: give --format, --dtype or both")
    from flows.schemas import SCALED_COLUMNS
    from flows.steps.progress import Progress
    from stores.convert import convert_store
    from stores.store import Store

    start_logging()
    opened = Store.open(store)
    schema, shard_format = opened.header.schema, shard_format or opened.header.shard_format
    halved = [name for name in SCALED_COLUMNS if name in schema.names]
    scaled = {None: None, "float32": [], "float16": halved}[dtype]
    if dry_run:
        print_result(
            {
                "format": shard_format,
                "scaled": "as in STORE" if scaled is None else scaled,
                "rows": opened.manifest.counts.rows,
                "shards": len(opened.manifest.shards),
            },
            as_json=as_json,
        )
        return
    with Progress("convert", len(opened.manifest.shards), unit="shards") as progress:
        done = convert_store(
            store,
            out,
            shard_format=shard_format,
            scaled=scaled,
            on_shard=lambda place, _total: progress.advance(place - progress.done),
        )
    result = {
        "store": str(out),
        "format": shard_format,
        "rows": done.rows,
        "shards made": done.shards_made,
        "lossless": done.is_lossless,
        "blobs kept": list(done.blobs_kept),
        "blobs dropped": list(done.blobs_dropped),
    }
    print_result(result, as_json=as_json)
