"""`deltaedit run`: several data sets and mappers in one go."""

from pathlib import Path
from typing import Any

import click

from flows.commands.options import (
    DRY_RUN,
    JSON,
    PREFECT,
    print_result,
    show_config,
    start_logging,
)
from flows.commands.recording import is_recorded, run_flow


@click.command()
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@PREFECT
@JSON
@DRY_RUN
def command(file: Path, *, use_prefect: bool, as_json: bool, dry_run: bool) -> int:
    """Precompute, index, relevance, train, evaluate and report for every entry of FILE (YAML).

    What is done is not done again, an entry that fails does not stop the others, and the same
    command finishes what is missing. docs/flows.md describes FILE.

    Example: deltaedit run nightly.yaml
    """
    from flows.config import go_offline

    go_offline()
    start_logging()
    from flows.commands.run_file import read_run_file
    from flows.exits import DONE

    config = read_run_file(file)
    show_config(config)
    if dry_run:
        print_result(_preview(config), as_json=as_json)
        return DONE
    if is_recorded(use_prefect=use_prefect):
        summary = run_flow("full_run", config)
    else:
        from flows.steps.full_run import full_run

        summary = full_run(config)
    _print_summary(summary, file, as_json=as_json)
    return summary.exit_code


def _preview(config: Any) -> dict[str, Any]:
    from flows.steps.full_run import preview_entry

    return {entry.name: preview_entry(entry) for entry in config.entries}


def _print_summary(summary: Any, file: Path, *, as_json: bool) -> None:
    """What is done, what is not, and the command that finishes it."""
    from flows.steps.full_run import as_table

    finish = f"deltaedit run {file}" if summary.missing else None
    if as_json:
        result = {"stages": as_table(summary), "missing": len(summary.missing), "finish": finish}
        print_result(result, as_json=True)
        return
    for line in as_table(summary):
        click.echo("{entry}: {stage}: {state} ({seconds} s): {detail}".format(**line))
    if finish:
        click.echo(f"{len(summary.missing)} stages are missing; to finish them: {finish}")
