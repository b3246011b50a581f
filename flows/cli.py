"""The program `deltaedit`: names of commands, loaded one at a time so that --help is instant."""

import importlib
import sys

import click

COMMANDS = {
    "demo": "Run the whole pipeline on the bundled avatar world.",
    "avatars": "Render avatars as PNG files with their attributes and captions.",
    "doctor": "Check device, weights, disk and inputs before a run.",
    "precompute": "Encode a data set into a store: CLIP, W+ and S codes.",
    "store": "Describe or verify a store.",
    "index": "Build the FAISS index and the neighbour graph of a store.",
    "neighbours": "Show the nearest rows of a key, an image or a text.",
    "pairs": "Draw source/target pairs from a store.",
    "relevance": "Estimate the relevance matrix Rs of a store.",
    "train": "Train a Delta Mapper from the cached vectors of a store.",
    "edit": "Edit images or rows of a store by text.",
    "evaluate": "Measure a trained mapper on the held-out split.",
    "report": "Write one HTML page about a store or a run.",
}


class LazyGroup(click.Group):
    """A group whose commands live in flows/commands and are imported on first use."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The commands in the order of a user's day."""
        del ctx
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command, or None (click then lists near matches)."""
        del ctx
        if cmd_name not in COMMANDS:
            return None
        return importlib.import_module(f"flows.commands.{cmd_name}").command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Summaries come from `COMMANDS`, so that --help imports no command."""
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="deltaedit-pipeline")
def cli() -> None:
    """Precompute, train and edit in the manner of DeltaEdit, from cached vectors.

    A first look: deltaedit demo --out demo-out
    """


def main() -> None:
    """Entry point: exit codes as in `deltaedit COMMAND --help`."""
    from flows.exits import run_to_exit_code

    sys.exit(run_to_exit_code(cli))
