"""`deltaedit deploy`: the flows as Prefect deployments."""

from pathlib import Path

import click

from flows.commands.options import DRY_RUN, JSON, print_result, show_config


@click.command()
@click.argument(
    "file", required=False, type=click.Path(path_type=Path, exists=True, dir_okay=False)
)
@click.option("--pool", default="deltaedit", show_default=True, help="Process work pool.")
@click.option("--schedule", metavar="CRON", help="When to run FILE, in UTC: '0 1 * * *'.")
@JSON
@DRY_RUN
def command(
    file: Path | None, pool: str, schedule: str | None, *, as_json: bool, dry_run: bool
) -> None:
    """Register every flow in the Prefect server that PREFECT_API_URL names.

    With FILE, a run file, the full run gets its data sets as parameters, to be edited in the UI;
    with --schedule it runs by itself. `prefect worker start --pool deltaedit` then does the work.

    Example: deltaedit deploy nightly.yaml --schedule "0 1 * * *"
    """
    from flows.commands.run_file import read_run_file

    if schedule and not file:
        raise click.UsageError("--schedule needs FILE: without data sets there is nothing to run")
    config = read_run_file(file) if file else None
    resolved = {"pool": pool, "schedule": schedule, "full_run": config}
    show_config(resolved)
    if dry_run:
        return
    from flows.deployments import deploy

    try:
        deployed = deploy(pool=pool, cron=schedule, config=config)
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    print_result({"pool": pool, "deployments": deployed}, as_json=as_json)
