"""Groups of commands that are imported one at a time, so that --help is instant."""

import importlib
import keyword
from collections.abc import Mapping
from typing import Any

import click


class LazyGroup(click.Group):
    """A click group whose commands are modules of one package, imported on first use."""

    def __init__(self, *, package: str, summaries: Mapping[str, str], **attributes: Any) -> None:
        """Describe the commands without importing them.

        Args:
            package: where their modules are; each has a click command named `command`. A dash
                is an underscore in a module's name, and a keyword of Python ends in one.
            summaries: one line for each command, in the order of a user's day.
            attributes: those of `click.Group`.
        """
        super().__init__(**attributes)
        self._package = package
        self._summaries = dict(summaries)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The commands in the order of a user's day."""
        del ctx
        return list(self._summaries)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command, or None (click then lists near matches)."""
        del ctx
        if cmd_name not in self._summaries:
            return None
        module = cmd_name.replace("-", "_")
        module += "_" if keyword.iskeyword(module) else ""
        return importlib.import_module(f"{self._package}.{module}").command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Summaries come with the group, so that --help imports no command."""
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl(list(self._summaries.items()))
