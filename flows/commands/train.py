"""`deltaedit train`: a Delta Mapper from cached vectors."""

from pathlib import Path
from typing import Any

import click

from flows.commands.options import (
    DRY_RUN,
    JSON,
    PREFECT,
    SEED,
    STORE,
    pair_options,
    print_result,
    show_config,
    start_logging,
    take_pair_config,
)
from flows.commands.problems import Checks
from flows.commands.recording import is_recorded, run_flow
from stores.places import StorePath


@click.command()
@STORE
@click.argument("run", type=click.Path(path_type=Path, file_okay=False))
@click.option(
    "--recipe",
    type=click.Choice(["official", "fast"]),
    default="fast",
    show_default=True,
    help="official is the published optimisation; fast reaches a lower loss sooner.",
)
@click.option("--steps", type=int, help="Updates (default: the recipe's).")
@click.option("--batch-size", type=int, help="Pairs per update (default: the recipe's).")
@pair_options
@click.option(
    "--resume",
    is_flag=True,
    help="Accept RUN if it is finished, too; an interrupted run is always continued.",
)
@click.option(
    "--condition",
    type=click.Choice(["delta", "target"]),
    default="delta",
    show_default=True,
    help="What the mapper is told: the CLIP difference, or (an ablation) the target's embedding.",
)
@click.option("--mse-weight", type=float, default=1.0, show_default=True, help="Of the MSE.")
@click.option(
    "--cosine-weight", type=float, default=1.0, show_default=True, help="Of 1 - cosine; 0: none."
)
@click.option(
    "--patience",
    type=int,
    help="End after so many held-out evaluations without improvement; keep the best weights.",
)
@click.option(
    "--residency",
    type=click.Choice(["auto", "float32", "float16", "stream"]),
    default="auto",
    show_default=True,
    help="How rows are held: in memory, in half of it, or read from the store as needed.",
)
@click.option("--device", default="auto", show_default=True, help="auto, cpu or cuda[:i].")
@SEED
@PREFECT
@JSON
@DRY_RUN
def command(
    store: StorePath,
    run: Path,
    *,
    use_prefect: bool,
    as_json: bool,
    dry_run: bool,
    **options: Any,
) -> None:
    """Train a Delta Mapper on the clip and s columns of STORE; everything goes into RUN.

    No generator, no CLIP and no image is needed on the machine that trains. Run the same command
    again to resume. On several GPUs: torchrun --nproc-per-node 8 --no-python deltaedit train ...

    Example: deltaedit train faces.store faces.run --recipe fast
    """
    from flows.config import go_offline, torchrun_ranks

    go_offline()
    start_logging()
    from flows.steps.train import find_rows, train

    config = configure(store=store, run=run, **options)
    is_first = torchrun_ranks().rank == 0
    if is_first:
        show_config(config)
    if dry_run:
        rows = find_rows(store)
        splits = {"train rows": len(rows.train), "held-out rows": len(rows.held_out)}
        print_result(splits, as_json=as_json)
        return
    # Of several processes that train together, one is the recorded run.
    recorded = is_first and is_recorded(use_prefect=use_prefect)
    result = run_flow("train", config) if recorded else train(config, _show)
    if not is_first:
        return
    fit = {name: round(group.explained, 4) for name, group in result.fit.scaled.items()}
    print_result({"run": str(run), "steps": result.trained.step, "explained": fit}, as_json=as_json)


def configure(
    *,
    store: StorePath,
    run: Path,
    resume: bool,
    device: str,
    residency: str,
    seed: int,
    **options: Any,
) -> Any:
    """The `TrainRun` that the options make."""
    from flows.steps.train import TrainRun
    from pipeline.training import TrainConfig

    checks = Checks()
    pairs = checks.part(take_pair_config, options, store=store, seed=seed)
    training = checks.part(TrainConfig, **options, pairs=pairs, seed=seed)
    return checks.whole(
        TrainRun,
        store=store,
        run=run,
        resume=resume,
        device=device,
        residency=residency,
        training=training,
    )


def _show(record: dict[str, float]) -> None:
    """One line a record of the training loss."""
    if "train/loss" in record:
        click.echo(
            f"step {record['step']}: loss {record['train/loss']:.4f}, "
            f"{record['time/pairs_per_s']:,.0f} pairs/s",
            err=True,
        )
