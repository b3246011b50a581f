"""`deltaedit precompute`: from images to a store."""

from pathlib import Path
from typing import Any

import click

from flows.commands.options import (
    DRY_RUN,
    JSON,
    PREFECT,
    STORE_PATH,
    dtype_option,
    format_option,
    model_options,
    print_result,
    show_config,
    start_logging,
    take_model_options,
)
from flows.commands.problems import Checks
from flows.commands.recording import is_recorded, run_flow
from stores.places import StorePath


@click.command()
@click.argument("sources", nargs=-1, required=True)
@click.argument("store", type=STORE_PATH)
@model_options
@format_option(default="hdf5", show_default=True)
@dtype_option(default="float32", show_default=True)
@click.option("--shard-rows", type=int, default=1024, show_default=True, help="Inputs per shard.")
@click.option("--batch-size", type=int, default=64, show_default=True, help="Images per pass.")
@click.option(
    "--jpeg-decoder",
    type=click.Choice(["libjpeg", "nvjpeg"]),
    default="libjpeg",
    show_default=True,
    help="nvjpeg decodes on the models' CUDA device; its pixels differ by a few levels.",
)
@click.option(
    "--workers", type=int, help="Threads that read and decode (default: all CPUs), in each process."
)
@click.option(
    "--split-eval", type=float, default=0.1, show_default=True, help="Share held out, by key."
)
@click.option(
    "--max-reject-rate", type=float, default=0.05, show_default=True, help="Above it: exit code 1."
)
@click.option(
    "--cluster",
    help="Where to run: local:N, tcp://HOST:PORT, a scheduler file (.json), or a YAML file naming "
    "a Dask cluster class (default: in this process).",
)
@click.option("--retry-rejects", is_flag=True, help="Try again what was rejected before.")
@PREFECT
@JSON
@DRY_RUN
def command(
    sources: tuple[str, ...],
    store: StorePath,
    *,
    as_json: bool,
    dry_run: bool,
    use_prefect: bool,
    **options: Any,
) -> None:
    """Encode SOURCES into STORE.

    A source is a folder, an image, a tar of images (WebDataset's), a pattern such as
    'faces-{000000..000009}.tar' or 'faces/*.tar', @list.txt, or sampled:COUNT. All but the last
    may be on an object store: s3://bucket/faces.

    Run the same command again to resume: what is committed is never computed twice.

    Example: deltaedit precompute faces faces.store --models avatar
    """
    from flows.config import go_offline

    go_offline()
    start_logging()
    from flows.steps.complete import require_complete
    from flows.steps.stages import precompute_shown

    config = configure(sources=sources, store=store, **options)
    show_config(config)
    if dry_run:
        print_result(_preview(config), as_json=as_json)
        return
    recorded = is_recorded(use_prefect=use_prefect)
    summary = run_flow("precompute", config) if recorded else precompute_shown(config)
    print_result(summary.as_dict(), as_json=as_json)
    require_complete(summary, config)


def configure(
    *, sources: tuple[str, ...], store: StorePath, workers: int | None, **options: Any
) -> Any:
    """The `PrecomputeConfig` that the options make."""
    from flows.steps.precompute import PrecomputeConfig

    checks = Checks()
    models = checks.part(take_model_options, options)
    cluster = options["cluster"]
    if cluster and Path(cluster).suffix in {".json", ".yaml", ".yml"}:
        options["cluster"] = str(Path(cluster).absolute())  # as deployments need it
    return checks.whole(
        PrecomputeConfig,
        sources=sources,
        store=store,
        models=models,
        num_workers=workers,
        **options,
    )


def _preview(config: Any) -> dict[str, Any]:
    from flows.models import find_files
    from flows.steps.precompute import scan

    files = find_files(config.models, sampled=config.sampled is not None)
    found = scan(config)
    return {
        "inputs": len(found.items) + len(found.rejects) + len(found.duplicates),
        "to encode": len(found.items),
        "rejects": len(found.rejects),
        "duplicates": len(found.duplicates),
        "shards": -(-len(found.items) // config.shard_rows),
        "clip": files.clip_weights,
        "encoder": files.encoder,
        "generator": files.generator,
    }
