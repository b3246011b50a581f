"""`deltaedit relevance`: which style channels move CLIP in which direction."""

from pathlib import Path
from typing import Any

import click

from flows.commands.options import DRY_RUN, JSON, PREFECT, STORE, checked, print_result, show_config
from flows.commands.recording import is_recorded, run_flow
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
@PREFECT
@JSON
@DRY_RUN
def command(
    store: StorePath,
    *,
    out: Path | None,
    use_prefect: bool,
    as_json: bool,
    dry_run: bool,
    **options: Any,
) -> None:
    """Estimate the relevance matrix Rs [S, C] of STORE; it is kept in the store for edits.

    Example: deltaedit relevance faces.store --method regressed --out rs.npz
    """
    config = configure(store=store, **options)
    show_config(config)
    if dry_run:
        return
    from flows.steps.output import write_config_beside
    from flows.steps.relevance import estimate_relevance, write_npz

    recorded = is_recorded(use_prefect=use_prefect)
    rs = run_flow("relevance", config) if recorded else estimate_relevance(config)
    if out is not None:
        write_npz(out, rs)
        write_config_beside(out, config)
    channels, clip_dim = rs.shape
    print_result(
        {
            "store": str(store),
            "method": config.method,
            "channels": channels,
            "clip_dim": clip_dim,
        },
        as_json=as_json,
    )


def configure(*, store: StorePath, method: str, ridge: float) -> Any:
    """The `RelevanceRun` that the options make."""
    from flows.steps.relevance import RelevanceRun
    from pipeline.pairs import RelevanceConfig

    regression = checked(RelevanceConfig, ridge=ridge)
    return checked(RelevanceRun, store=store, method=method, regression=regression)
