"""`deltaedit status`: how far a run is."""

import json
import time
from typing import Any

import click

from flows.commands.options import JSON, STORE, print_result
from stores.places import StorePath

WATCH_S = 2.0
"""Seconds between two looks."""


@click.command()
@STORE
@JSON
@click.option("--watch", is_flag=True, help="Look again every 2 s, until the run ends.")
def command(store: StorePath, *, as_json: bool, watch: bool) -> None:
    """How far the run that makes STORE is, or how its last run ended.

    Works on any machine that sees the store, without a server. A run whose driver died is `lost`:
    run its command again.

    Example: deltaedit status faces.store --watch
    """
    from flows.exits import stop_if_asked
    from flows.steps.status import RUNNING
    from flows.steps.watch import read_status

    while True:
        status = read_status(store)
        _show(status, as_json=as_json, clear=watch)
        if not watch or status["run"] is None or status["run"]["state"] != RUNNING:
            return
        time.sleep(WATCH_S)
        stop_if_asked()


def _show(status: dict[str, Any], *, as_json: bool, clear: bool) -> None:
    if as_json:
        click.echo(json.dumps(status))
        return
    if clear:
        click.clear()  # does nothing where standard output is no terminal
    print_result(_lines(status), as_json=False)


def _lines(status: dict[str, Any]) -> dict[str, Any]:
    """The status as a person reads it."""
    held = f"{status['shards']} shards, {status['rows']} rows, {status['rejects']} rejects"
    run = status["run"]
    if run is None:
        return {"store": held, "run": "none on record"}
    shards, inputs = run["shards"], run["inputs"]
    left_s = run["seconds_left"]
    left = (
        "" if left_s is None else f", {left_s // 3600}:{left_s // 60 % 60:02}:{left_s % 60:02} left"
    )
    return {
        "store": held,
        "run": f"{run['state']}, begun {run['started']}",
        "driver": f"process {run['pid']} on {run['host']}, last heard {run['silent_s']} s ago",
        "workers": run["workers"],
        "shards": f"{shards['done']} of {shards['planned']} done, {shards['failed']} failed",
        "images": f"{inputs['done']} of {inputs['planned']}, {inputs['rejects']} rejected, "
        f"{run['images_per_s']} images/s{left}",
        "in work": [
            f"shard {w['number']} on {w['worker']} for {w['seconds']:.0f} s" for w in run["in_work"]
        ],
        "failed": [f"shard {f['shard']}: {f['reason']}" for f in run["failures"]],
    }
