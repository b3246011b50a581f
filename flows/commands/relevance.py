"""`deltaedit relevance`: which style channels move CLIP in which direction."""

from pathlib import Path
from typing import Any

import click

from flows.commands.options import DRY_RUN, JSON, PREFECT, STORE, print_result, show_config
from flows.commands.problems import Checks
from flows.commands.recording import is_recorded, run_flow
from stores.places import StorePath


@click.command()
@STORE
@click.option(
    "--method",
    type=click.Choice(["regressed", "rendered"]),
    default="regressed",
    show_default=True,
    help="regressed estimates Rs from cached vectors alone; rendered is StyleCLIP's construction.",
)
@click.option("--ridge", type=float, default=0.1, show_default=True, help="Ridge penalty.")
@click.option(
    "--num-images", type=int, default=100, show_default=True, help="rendered: codes per channel."
)
@click.option(
    "--published-order",
    is_flag=True,
    help="rendered: leave done channels at their means, as the published code does by mistake.",
)
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
    from flows.steps.relevance import estimate_relevance, read_agreement, write_npz

    recorded = is_recorded(use_prefect=use_prefect)
    rs = run_flow("relevance", config) if recorded else estimate_relevance(config, _show)
    if out is not None:
        write_npz(out, rs)
        write_config_beside(out, config)
    channels, clip_dim = rs.shape
    result = {
        "store": str(store),
        "method": config.method,
        "channels": channels,
        "clip_dim": clip_dim,
    }
    agreement = read_agreement(store)
    if agreement is not None:
        result["cosine with regressed"] = agreement
    print_result(result, as_json=as_json)


def configure(
    *, store: StorePath, method: str, ridge: float, num_images: int, published_order: bool
) -> Any:
    """The `RelevanceRun` that the options make."""
    from flows.steps.relevance import RelevanceRun
    from pipeline.encoding.rendered_relevance import RenderedConfig
    from pipeline.pairs import RelevanceConfig

    checks = Checks()
    rendering = checks.part(RenderedConfig, num_images=num_images, published_order=published_order)
    regression = checks.part(RelevanceConfig, ridge=ridge)
    return checks.whole(
        RelevanceRun, store=store, method=method, regression=regression, rendering=rendering
    )


def _show(done: int, total: int) -> None:
    click.echo(f"{done} of {total} channels", err=True)
