"""`deltaedit precompute`: from images to a store."""

from typing import Any

import click

from flows.commands.options import (
    DRY_RUN,
    JSON,
    STORE_PATH,
    checked,
    model_options,
    print_result,
    show_config,
    start_logging,
    take_model_options,
)
from stores.places import StorePath


@click.command()
@click.argument("sources", nargs=-1, required=True)
@click.argument("store", type=STORE_PATH)
@model_options
@click.option("--shard-rows", type=int, default=1024, show_default=True, help="Inputs per shard.")
@click.option("--batch-size", type=int, default=64, show_default=True, help="Images per pass.")
@click.option("--workers", type=int, help="Threads that read and decode (default: all CPUs).")
@click.option(
    "--split-eval", type=float, default=0.1, show_default=True, help="Share held out, by key."
)
@click.option(
    "--max-reject-rate", type=float, default=0.05, show_default=True, help="Above it: exit code 1."
)
@click.option("--retry-rejects", is_flag=True, help="Try again what was rejected before.")
@click.option("--prefect", "use_prefect", is_flag=True, help="Record the run in Prefect.")
@JSON
@DRY_RUN
def command(
    sources: tuple[str, ...],
    store: StorePath,
    workers: int | None,
    *,
    as_json: bool,
    dry_run: bool,
    use_prefect: bool,
    **options: Any,
) -> None:
    """Encode SOURCES (folders, files, @list.txt or sampled:COUNT) into STORE.

    Run the same command again to resume: what is committed is never computed twice.

    Example: deltaedit precompute faces faces.store --models avatar
    """
    from flows.config import go_offline, num_cpus, prefect_is_configured

    go_offline()
    start_logging()
    from flows.steps.precompute import PrecomputeConfig

    models = take_model_options(options)
    config = checked(
        PrecomputeConfig,
        sources=sources,
        store=store,
        models=models,
        num_workers=workers if workers is not None else num_cpus(),
        **options,
    )
    show_config(config)
    if dry_run:
        print_result(_preview(config), as_json=as_json)
        return
    summary = _recorded(config) if use_prefect or prefect_is_configured() else _shown(config)
    print_result(summary.as_dict(), as_json=as_json)
    _judge(summary, config)


def _judge(summary: Any, config: Any) -> None:
    from flows.exits import IncompleteError

    if summary.reject_rate > config.max_reject_rate:
        raise IncompleteError(
            f"{summary.rejects} of {summary.inputs} inputs were rejected, more than "
            f"--max-reject-rate {config.max_reject_rate}; reasons: {config.store}/rejects"
        )


def _recorded(config: Any) -> Any:
    """Run as a Prefect flow."""
    from flows.precompute import precompute

    return precompute(config)


def _shown(config: Any) -> Any:
    """Run in this process, with a progress bar or a line a shard."""
    from flows.steps.precompute import precompute
    from flows.steps.progress import Progress

    # Off a terminal every call is a line, and there is one a shard.
    with Progress("precompute", 0, unit="images", every_s=0.0) as progress:

        def show(done: int, total: int) -> None:
            progress.total = total
            progress.advance(done - progress.done)

        return precompute(config, show)


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
