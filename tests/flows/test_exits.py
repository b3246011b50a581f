"""What users can cause has an exit code and one message; defects keep their traceback."""

import errno
import signal
import sys

import click
import pytest

from flows.exits import TERMINATED, IncompleteError, Terminated, run_to_exit_code
from flows.steps.progress import Progress
from pipeline.errors import DivergedError, WeightsError
from stores.errors import (
    FingerprintMismatchError,
    ManifestError,
    OutOfSpaceError,
    ShardCorruptError,
    StoreBusyError,
)


@pytest.fixture
def code_of(monkeypatch):
    """The exit code of a command that raises an error."""
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    monkeypatch.setattr("sys.argv", ["deltaedit"])

    def run(error):
        @click.command()
        def command():
            if error is not None:
                raise error

        return run_to_exit_code(command)

    return run


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (None, 0),
        (IncompleteError("3 of 9 inputs were rejected"), 1),
        (OutOfSpaceError("no room"), 1),
        (DivergedError("the loss is nan"), 1),
        (OSError(errno.ENOSPC, "No space left on device"), 1),
        (click.UsageError("no such option"), 2),
        (FingerprintMismatchError("other weights"), 2),
        (StoreBusyError("in use"), 2),
        (WeightsError("no such file"), 2),
        (FileNotFoundError("nowhere"), 2),
        (ShardCorruptError("flipped"), 3),
        (ManifestError("cut"), 3),
        (KeyboardInterrupt(), 130),
        (Terminated(), 143),
    ],
)
def test_every_error_of_a_user_has_its_code(code_of, capsys, error, code):
    assert code_of(error) == code
    message = capsys.readouterr().err
    assert "Traceback" not in message
    assert bool(message) == bool(code)


def test_a_defect_of_the_program_keeps_its_traceback(code_of):
    with pytest.raises(TypeError, match="a defect"):
        code_of(TypeError("a defect"))


def test_a_signal_that_a_destructor_swallowed_stops_the_work_at_the_next_step(monkeypatch):
    class Swallowing:
        def __del__(self):
            signal.raise_signal(signal.SIGTERM)

    @click.command()
    def work():
        with Progress("steps", 2, unit="steps") as progress:
            victim = Swallowing()
            del victim
            swallowed.append(True)
            progress.advance()

    swallowed = []
    monkeypatch.setattr("sys.argv", ["work"])
    monkeypatch.setattr(sys, "unraisablehook", lambda _args: None)
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        assert run_to_exit_code(work) == TERMINATED
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    assert swallowed


def test_an_interrupted_user_is_told_how_to_go_on(code_of, capsys):
    code_of(Terminated())
    assert "run the same command again to resume" in capsys.readouterr().err
