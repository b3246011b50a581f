"""What Prefect costs: a recorded flow over the plain function, and a report of progress.

Against a server that runs already. Run: ``pytest -m bench tests/bench/bench_prefect.py -s``.
"""

import time

import pytest

from flows.models import ModelOptions
from flows.steps.precompute import PrecomputeConfig

MAX_REPORT_SHARE = 0.05
"""Of the time between two reports of progress."""
MAX_FLOW_S = 8.0
"""A synchronous flow run costs 1.1 s on an idle machine, most of it a heartbeat's last sleep."""
NUM_REPORTS = 30


def seconds_of(work):
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


@pytest.mark.bench
@pytest.mark.usefixtures("recorded_here")
def test_a_recorded_run_costs_seconds_and_a_report_of_progress_little(tmp_path, table):
    from prefect import flow

    from flows.observe import REPORT_EVERY_S, Observed
    from flows.precompute import precompute as recorded
    from flows.steps.precompute import precompute as plain

    def config(name):
        return PrecomputeConfig(
            sources=("sampled:64?seed=4",),
            store=tmp_path / name,
            models=ModelOptions(models="avatar", columns=("w_plus", "s")),
            shard_rows=16,
        )

    plain(config("warm"))
    plain_s = seconds_of(lambda: plain(config("plain")))
    recorded_s = seconds_of(lambda: recorded(config("recorded")))
    seconds = []

    @flow
    def reporting():
        with Observed("reports", tmp_path) as run:
            for number in range(NUM_REPORTS):
                run._reported -= REPORT_EVERY_S
                seconds.append(seconds_of(lambda n=number: run.progress(n, NUM_REPORTS)))

    reporting()
    report_s = sorted(seconds)[NUM_REPORTS // 2]
    table.at_most(
        "a recorded precompute of 64 samples",
        recorded_s - plain_s,
        MAX_FLOW_S,
        unit="s more",
        against="the plain function, server running",
    )
    table.at_most(
        "a report of progress to Prefect",
        report_s / REPORT_EVERY_S,
        MAX_REPORT_SHARE,
        against="the time between two",
    )
