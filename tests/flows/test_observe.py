"""What flows show in Prefect: limits that keep runs apart, and work that goes on without it."""

import logging
import socket
import threading
from pathlib import Path

import pytest


@pytest.mark.usefixtures("recorded_here")
def test_a_limit_is_made_where_it_is_missing_and_keeps_two_runs_apart():
    from flows.observe import own_limit

    name = "deltaedit-gpu-test"
    with own_limit(name):
        with pytest.raises(TimeoutError), own_limit(name, timeout_s=1):
            pass
        entered = threading.Event()

        def wait_for_it():
            with own_limit(name):
                entered.set()

        waiting = threading.Thread(target=wait_for_it)
        waiting.start()
        assert not entered.wait(1)
    waiting.join(60)
    assert entered.is_set()


@pytest.mark.usefixtures("recorded_here")
def test_a_run_on_a_cpu_waits_for_nobody():
    from prefect.client.orchestration import get_client

    from flows.observe import own_gpu

    with get_client(sync_client=True) as client:
        before = len(client.read_global_concurrency_limits())
        with own_gpu("cpu"):
            assert len(client.read_global_concurrency_limits()) == before


@pytest.mark.usefixtures("recorded_here")
def test_work_goes_on_where_prefect_cannot_be_told(caplog):
    from prefect import flow
    from prefect.settings import PREFECT_API_URL, temporary_settings

    from flows.observe import Observed

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        nowhere = f"http://127.0.0.1:{free.getsockname()[1]}/api"

    @flow
    def watched():
        with Observed("test", Path("a.store")) as run:
            logging.getLogger("deltaedit").addHandler(caplog.handler)
            with temporary_settings(updates={PREFECT_API_URL: nowhere}):
                run.values({"rows": 3})
                run.progress(1, 1)
        return "done"

    assert watched() == "done"
    assert "Prefect could not be told" in caplog.text
