"""Exit codes of `deltaedit`, and how errors become them.

0 done; 1 done with something missing; 2 the call is wrong, nothing was written; 3 a store is
damaged; 130/143 interrupted, run the same command again to resume.
"""

import signal
import sys
from types import FrameType

import click

DONE = 0
INCOMPLETE = 1
WRONG_CALL = 2
DAMAGED_STORE = 3
INTERRUPTED = 130
TERMINATED = 143


class Terminated(BaseException):
    """SIGTERM arrived; unwinds the stack so that open files close and locks are released."""


class IncompleteError(Exception):
    """The work ended, but part of it is missing; the message says what."""


def _on_sigterm(_signum: int, _frame: FrameType | None) -> None:
    raise Terminated


def run_to_exit_code(command: click.Command) -> int:
    """Run a click command and turn what it raises into an exit code and one clear message."""
    from pipeline.errors import PipelineError
    from stores.errors import ManifestError, ShardCorruptError, StoreError

    signal.signal(signal.SIGTERM, _on_sigterm)
    try:
        result = command.main(standalone_mode=False)
    except click.exceptions.Abort:
        return _say("interrupted; run the same command again to resume", INTERRUPTED)
    except KeyboardInterrupt:
        return _say("interrupted; run the same command again to resume", INTERRUPTED)
    except Terminated:
        return _say("terminated; run the same command again to resume", TERMINATED)
    except click.ClickException as error:
        error.show()
        return WRONG_CALL
    except IncompleteError as error:
        return _say(str(error), INCOMPLETE)
    except (ShardCorruptError, ManifestError) as error:
        return _say(f"Error: {error}", DAMAGED_STORE)
    except (StoreError, PipelineError, FileNotFoundError, PermissionError) as error:
        return _say(f"Error: {error}", WRONG_CALL)
    return result if isinstance(result, int) else DONE


def _say(message: str, code: int) -> int:
    print(message, file=sys.stderr)  # noqa: T201 - the last word of a command
    return code
