"""Whether a command records its run in Prefect, and how it then runs."""

import importlib
from typing import Any

from flows.config import prefect_is_configured


def is_recorded(*, use_prefect: bool) -> bool:
    """Whether to run as a Prefect flow: asked for, or the environment names a Prefect API."""
    return use_prefect or prefect_is_configured()


def run_flow(name: str, config: Any) -> Any:
    """Run the flow `name` in this process and return what its step returns.

    Work that ended with something missing is a failed flow run; its result comes back all the
    same, for the command to print and to judge.

    Args:
        name: a module of `flows` that has a Prefect flow of that name.
        config: the flow's one parameter.
    """
    from flows.exits import IncompleteError

    # Imported only here: Prefect takes seconds.
    flow = getattr(importlib.import_module(f"flows.{name}"), name)
    try:
        return flow(config)
    except IncompleteError as error:
        if error.result is None:
            raise
        return error.result
