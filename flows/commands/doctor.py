"""`deltaedit doctor`: preflight."""

from pathlib import Path
from typing import Any

import click

from flows.commands.options import (
    JSON,
    STORE_PATH,
    checked,
    dtype_option,
    format_option,
    model_options,
    print_result,
    take_model_options,
)
from stores.places import StorePath


@click.command()
@click.argument("sources", nargs=-1)
@click.option("--store", type=STORE_PATH, help="Where the store would go.")
@model_options
@format_option(default="hdf5", show_default=True)
@dtype_option(default="float32", show_default=True)
@JSON
def command(
    sources: tuple[str, ...], store: StorePath | None, *, as_json: bool, **options: Any
) -> int:
    """Check this machine and, with SOURCES, one precompute run; exit code 1 on problems.

    Without SOURCES, --models NAME looks for the files of that set alone.

    Example: deltaedit doctor faces --models avatar --store faces.store
    """
    from flows.config import go_offline
    from flows.exits import DONE, INCOMPLETE

    go_offline()
    from flows.steps.doctor import PROBLEM, check_machine, check_run

    findings = check_machine(options["models"])
    if sources:
        from flows.steps.precompute import PrecomputeConfig

        findings += check_run(
            checked(
                PrecomputeConfig,
                sources=sources,
                store=store or Path("deltaedit.store"),
                models=take_model_options(options),
                **options,
            )
        )
    if as_json:
        from dataclasses import asdict

        print_result({"findings": [asdict(finding) for finding in findings]}, as_json=True)
    else:
        for finding in findings:
            click.echo(f"{finding.level:<8} {finding.topic}: {finding.text}")
    return INCOMPLETE if any(finding.level == PROBLEM for finding in findings) else DONE
