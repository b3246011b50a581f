"""Exit codes of `deltaedit`, and how errors become them.

0 done; 1 failed, or done with something missing; 2 the call is wrong, nothing was written; 3 a
store is damaged; 130/143 interrupted, run the same command again to resume.
"""

import errno
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import click

from pipeline.errors import DivergedError, PipelineError
from stores.errors import (
    ManifestError,
    ObjectStoreError,
    OutOfSpaceError,
    ShardCorruptError,
    StoreError,
)

DONE = 0
INCOMPLETE = 1
WRONG_CALL = 2
DAMAGED_STORE = 3
INTERRUPTED = 130
TERMINATED = 143


class Terminated(BaseException):
    """SIGTERM arrived; unwinds the stack so that open files close and locks are released."""

    def __str__(self) -> str:
        return "terminated; run the same command again to resume"


class IncompleteError(Exception):
    """The work ended, but part of it is missing; the message says what.

    Attributes:
        result: what the work returned, where it returned something.
    """

    def __init__(self, message: str, *, result: object = None) -> None:
        super().__init__(message)
        self.result = result


class WrongCallError(Exception):
    """The call asks for what is not there; found before anything was written."""


# The first type that fits decides.
_CODES: tuple[tuple[type[BaseException], int], ...] = (
    (KeyboardInterrupt, INTERRUPTED),
    (click.exceptions.Abort, INTERRUPTED),
    (Terminated, TERMINATED),
    (click.ClickException, WRONG_CALL),
    (IncompleteError, INCOMPLETE),
    (WrongCallError, WRONG_CALL),
    (ShardCorruptError, DAMAGED_STORE),
    (ManifestError, DAMAGED_STORE),
    (OutOfSpaceError, INCOMPLETE),
    (ObjectStoreError, INCOMPLETE),
    (DivergedError, INCOMPLETE),
    (StoreError, WRONG_CALL),
    (PipelineError, WRONG_CALL),
    (BrokenPipeError, INCOMPLETE),
    (FileNotFoundError, WRONG_CALL),
    (PermissionError, WRONG_CALL),
    (NotADirectoryError, WRONG_CALL),
    (IsADirectoryError, WRONG_CALL),
)
_FAILED_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO}


def run_to_exit_code(command: click.Command) -> int:
    """Run a click command and turn what it raises into an exit code and one clear message.

    Defects of the program itself keep their traceback.
    """
    _asked.clear()
    for signum in _STOPPERS:
        signal.signal(signum, _on_stop)
    try:
        result = command.main(standalone_mode=False)
        sys.stdout.flush()
    except BaseException as error:
        code = exit_code_of(error)
        if code is None:
            raise
        _explain(error)
        return code
    return result if isinstance(result, int) else DONE


@contextmanager
def stopping_between_steps() -> Iterator[None]:
    """Let the first signal wait for `stop_if_asked`: work in the block is not cut in the middle.

    A second signal raises at once.
    """
    global _waits  # noqa: PLW0603 - signals belong to the process
    _waits = True
    try:
        yield
    finally:
        _waits = False


def stop_if_asked() -> None:
    """Raise what a signal asked for: for the first time, or once more.

    A signal that arrives inside a destructor or a callback of a C library raises there and is
    swallowed; long loops call this so that it is not forgotten.
    """
    if _asked:
        raise _asked[-1]


_STOPPERS: dict[int, type[BaseException]] = {
    signal.SIGINT: KeyboardInterrupt,
    signal.SIGTERM: Terminated,
}
_asked: list[type[BaseException]] = []
_waits = False


def _on_stop(signum: int, _frame: FrameType | None) -> None:
    _asked.append(_STOPPERS[signum])
    if not _waits or len(_asked) > 1:
        raise _asked[-1]


def exit_code_of(error: BaseException) -> int | None:
    """The exit code that an error stands for; None for a defect of the program."""
    code = next((code for kind, code in _CODES if isinstance(error, kind)), None)
    if code is None and isinstance(error, OSError) and error.errno in _FAILED_DISK:
        return INCOMPLETE
    return code


def _explain(error: BaseException) -> None:
    if isinstance(error, BrokenPipeError):
        # The reader left (`| head`): the interpreter must not try to flush into the pipe again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    elif isinstance(error, click.ClickException):
        error.show()
    elif isinstance(error, KeyboardInterrupt | click.exceptions.Abort):
        _say("interrupted; run the same command again to resume")
    elif isinstance(error, Terminated | IncompleteError):
        _say(str(error))
    else:
        _say(f"Error: {error}")


def _say(message: str) -> None:
    print(message, file=sys.stderr)  # noqa: T201 - the last word of a command
