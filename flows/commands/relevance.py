"""`deltaedit relevance`: which style channels move CLIP in which direction."""

from pathlib import Path

import click

from flows.commands.options import DRY_RUN, JSON, STORE, checked, print_result, show_config
from stores.places import StorePath


@click.command()
@STORE
@click.option(
    "--method",
    type=click.Choice(["regressed"]),
    default="regressed",
    show_default=True,
    help="regressed estimates Rs from cached vectors alone.",
)
@click.option("--ridge", type=float, default=0.1, show_default=True, help="Ridge penalty.")
@click.option("--out", type=click.Path(path_type=Path), help="Also write Rs here (.npz, key rs).")
@JSON
@DRY_RUN
def command(
    store: StorePath, method: str, ridge: float, *, out: Path | None, as_json: bool, dry_run: bool
) -> None:
    """Estimate the relevance matrix Rs [S, C] of STORE; it is kept in the store for edits.

    Example: deltaedit relevance faces.store --method regressed --out rs.npz
    """
    from flows.steps.output import write_config_beside
    from flows.steps.relevance import RelevanceRun, estimate_relevance, write_npz
    from pipeline.pairs import RelevanceConfig

    config = checked(
        RelevanceRun,
        store=store,
        method=method,
        regression=checked(RelevanceConfig, ridge=ridge),
    )
    show_config(config)
    if dry_run:
        return
    rs = estimate_relevance(config)
    if out is not None:
        write_npz(out, rs)
        write_config_beside(out, config)
    channels, clip_dim = rs.shape
    print_result(
        {"store": str(store), "method": method, "channels": channels, "clip_dim": clip_dim},
        as_json=as_json,
    )
