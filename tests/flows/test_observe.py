"""What flows show in Prefect: limits that keep runs apart, and work that goes on without it."""

import contextvars
import socket
import threading

import pytest


@pytest.mark.usefixtures("recorded_here")
def test_a_limit_is_made_where_it_is_missing_and_keeps_two_runs_apart():
    from flows.observe import own_limits

    names = ["deltaedit-gpu-test-0", "deltaedit-gpu-test-1"]
    with own_limits(names):
        with pytest.raises(TimeoutError), own_limits(names, timeout_s=1):
            pass
        entered = threading.Event()

        def wait_for_it():
            with own_limits(names):
                entered.set()

        # Which server to use is a context variable, and threads have contexts of their own.
        waiting = threading.Thread(target=contextvars.copy_context().run, args=[wait_for_it])
        waiting.start()
        assert not entered.wait(1)
    waiting.join(60)
    assert entered.is_set()


@pytest.mark.usefixtures("recorded_here")
def test_a_run_on_a_cpu_waits_for_nobody():
    from prefect.client.orchestration import get_client

    from flows.observe import own_gpus

    with get_client(sync_client=True) as client:
        before = len(client.read_global_concurrency_limits())
        with own_gpus("cpu"), own_gpus("cpu", "local:2"), own_gpus("auto", "tcp://host:8786"):
            assert len(client.read_global_concurrency_limits()) == before


def test_work_goes_on_where_prefect_cannot_be_told(caplog):
    from flows.config import prepare_prefect

    prepare_prefect()
    import httpx

    from flows.observe import _told

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        nowhere = f"http://127.0.0.1:{free.getsockname()[1]}/api"
    assert _told(httpx.get, url=nowhere) is None
    assert "Prefect could not be told" in caplog.text
    assert "the work goes on" in caplog.text
