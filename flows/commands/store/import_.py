"""`deltaedit store import`: a store from vectors in another layout."""

from pathlib import Path
from typing import Any

import click

from flows.commands.options import (
    DRY_RUN,
    JSON,
    STORE_PATH,
    checked,
    model_file_options,
    print_result,
    show_config,
    start_logging,
    take_model_file_options,
)
from stores.places import StorePath


@click.command()
@click.argument("store", type=STORE_PATH)
@click.argument("source", type=click.Path(exists=True, path_type=Path))
@click.option(
    "--layout",
    type=click.Choice(["official", "clip-retrieval"]),
    default="official",
    show_default=True,
    help="official: {c,w,s}space_{noise,ffhq}_feat.npy or {c,wplus,s}space_img_feat.npy. "
    "clip-retrieval: img_emb/img_emb_0.npy with metadata/metadata_0.parquet, and so on.",
)
@click.option(
    "--clip-pre",
    type=click.Choice(["official", "box7"]),
    help="CLIP pre-processing behind the embeddings (default: box7 for the layout official, as in "
    "all published ones; official for clip-retrieval).",
)
@model_file_options
@click.option("--neutral", help="The domain's neutral word (default: the models', else face).")
@click.option("--shard-rows", type=int, default=1024, show_default=True, help="Rows per shard.")
@click.option(
    "--split-eval", type=float, default=0.1, show_default=True, help="Share held out, by key."
)
@JSON
@DRY_RUN
def command(
    store: StorePath, source: Path, *, as_json: bool, dry_run: bool, **options: Any
) -> None:
    """Import the vectors in SOURCE into STORE; run the same command again to resume.

    The models are needed only to edit or to look at pictures later; S is then compared with what
    their generator makes of W+.

    Example: deltaedit store import ffhq.store latent_code/ffhq --layout official
    """
    from flows.config import go_offline

    go_offline()
    start_logging()
    from flows.steps.exchange import ImportConfig, import_vectors, preview
    from flows.steps.progress import Progress

    by_layout = {"official": "box7", "clip-retrieval": "official"}
    options["clip_pre"] = options["clip_pre"] or by_layout[options["layout"]]
    models = take_model_file_options(options, clip_pre=options["clip_pre"])
    config = checked(ImportConfig, store=store, source=source, models=models, **options)
    show_config(config)
    if dry_run:
        print_result(preview(config), as_json=as_json)
        return
    with Progress("import", 0, unit="rows") as progress:

        def show(done: int, total: int) -> None:
            progress.total = total
            progress.advance(done - progress.done)

        counts = import_vectors(config, show)
    result = {"store": str(store), "inputs": counts.inputs, "rows": counts.rows}
    print_result({**result, "rejects": counts.rejects}, as_json=as_json)
