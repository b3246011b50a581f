"""`deltaedit train`: a Delta Mapper from cached vectors."""

from pathlib import Path

import click

from flows.commands.options import (
    DRY_RUN,
    JSON,
    SEED,
    STORE,
    checked,
    print_result,
    show_config,
    start_logging,
)


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
@click.option(
    "--policy",
    type=click.Choice(["random", "nearest", "band"]),
    default="random",
    show_default=True,
    help="How pairs are drawn.",
)
@click.option("--num-neighbours", type=int, default=16, show_default=True, help="k of nearest.")
@click.option(
    "--min-similarity",
    type=float,
    default=-1.0,
    show_default=True,
    help="Least CLIP cosine of a pair (nearest and band).",
)
@click.option(
    "--max-similarity",
    type=float,
    default=1.0,
    show_default=True,
    help="Largest CLIP cosine of a pair (nearest and band).",
)
@click.option(
    "--resume",
    is_flag=True,
    help="Accept RUN if it is finished, too; an interrupted run is always continued.",
)
@click.option("--device", default="auto", show_default=True, help="auto, cpu or cuda[:i].")
@SEED
@JSON
@DRY_RUN
def command(
    store: Path,
    run: Path,
    *,
    recipe: str,
    steps: int | None,
    batch_size: int | None,
    policy: str,
    num_neighbours: int,
    min_similarity: float,
    max_similarity: float,
    resume: bool,
    device: str,
    seed: int,
    as_json: bool,
    dry_run: bool,
) -> None:
    """Train a Delta Mapper on the clip and s columns of STORE; everything goes into RUN.

    No generator, no CLIP and no image is needed on the machine that trains.

    Example: deltaedit train faces.store faces.run --recipe fast
    """
    from flows.config import go_offline

    go_offline()
    start_logging()
    from flows.steps.train import TrainRun, find_rows, train
    from pipeline.pairs import PairConfig
    from pipeline.training import Record, TrainConfig

    pairs = checked(
        PairConfig,
        policy=policy,
        num_neighbours=num_neighbours,
        min_similarity=min_similarity,
        max_similarity=max_similarity,
        seed=seed,
    )
    training = checked(
        TrainConfig, recipe=recipe, steps=steps, batch_size=batch_size, pairs=pairs, seed=seed
    )
    config = checked(
        TrainRun, store=store, run=run, resume=resume, device=device, training=training
    )
    show_config(config)
    if dry_run:
        rows = find_rows(store)
        splits = {"train rows": len(rows.train), "held-out rows": len(rows.held_out)}
        print_result(splits, as_json=as_json)
        return

    def show(record: Record) -> None:
        if "train/loss" in record:
            rate = record["time/pairs_per_s"]
            click.echo(
                f"step {record['step']}: loss {record['train/loss']:.4f}, {rate:,.0f} pairs/s",
                err=True,
            )

    result = train(config, show)
    fit = {name: round(group.explained, 4) for name, group in result.fit.scaled.items()}
    print_result({"run": str(run), "steps": result.recipe.steps, "explained": fit}, as_json=as_json)
