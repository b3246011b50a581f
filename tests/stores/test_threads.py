import threading
import time

import pytest

from stores import threads
from stores.threads import map_threads


@pytest.fixture
def patient(monkeypatch):
    """On a busy machine anything may take a few milliseconds."""
    monkeypatch.setattr(threads, "QUICK_S", 0.2)


@pytest.mark.usefixtures("patient")
def test_what_is_quick_stays_in_the_callers_thread():
    found = list(map_threads(lambda _: threading.current_thread(), range(100)))
    assert [item for item, _ in found] == list(range(100))
    assert {thread for _, thread in found} == {threading.current_thread()}


def test_what_waits_is_done_side_by_side_and_comes_in_order():
    at_work = set()
    most = 0

    def slow(item):
        nonlocal most
        at_work.add(item)
        most = max(most, len(at_work))
        time.sleep(0.02 if item % 3 else 0.01)
        at_work.discard(item)
        return item * item

    assert list(map_threads(slow, iter(range(40)))) == [(i, i * i) for i in range(40)]
    assert most > 4


@pytest.mark.usefixtures("patient")
def test_one_hiccup_starts_no_threads():
    def hiccup(item):
        time.sleep(0.3 if item == 5 else 0)
        return threading.current_thread()

    assert {thread for _, thread in map_threads(hiccup, range(20))} == {threading.current_thread()}


@pytest.mark.parametrize("seconds", [0, 0.001])
def test_an_error_reaches_the_caller(seconds):
    def fail(item):
        time.sleep(seconds)
        if item == 9:
            raise OSError("the disk is gone")
        return item

    with pytest.raises(OSError, match="the disk is gone"):
        list(map_threads(fail, range(20)))


def test_no_more_than_a_block_is_taken_ahead(monkeypatch):
    monkeypatch.setattr(threads, "_BLOCK", 8)
    taken = []
    results = map_threads(lambda item: item, (taken.append(i) or i for i in range(100)))
    assert next(results) == (0, 0)
    assert len(taken) == 8
