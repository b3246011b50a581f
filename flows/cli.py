"""The program `deltaedit`: its commands and what each is for."""

import sys

import click

from flows.lazy import LazyGroup

COMMANDS = {
    "demo": "Run the whole pipeline on the bundled avatar world.",
    "avatars": "Render avatars as PNG files with their attributes and captions.",
    "doctor": "Check device, weights, disk and inputs before a run.",
    "precompute": "Encode a data set into a store: CLIP, W+ and S codes.",
    "status": "Show how far the run that makes a store is.",
    "store": "Describe, check and change a store.",
    "index": "Build the FAISS index and the neighbour graph of a store.",
    "neighbours": "Show the nearest rows of a key, an image or a text.",
    "pairs": "Draw source/target pairs from a store.",
    "relevance": "Estimate the relevance matrix Rs of a store.",
    "train": "Train a Delta Mapper from the cached vectors of a store.",
    "export": "Write a trained mapper as the published code loads it (.pth).",
    "edit": "Edit images or rows of a store by text.",
    "evaluate": "Measure a trained mapper on the held-out split.",
    "alignment": "Compare images and texts in CLIP space with their differences.",
    "report": "Write one HTML page about a store or a run.",
    "run": "Do all of these for the data sets that a file lists.",
    "deploy": "Register the flows in Prefect, for schedules and its UI.",
}


@click.group(
    cls=LazyGroup,
    package="flows.commands",
    summaries=COMMANDS,
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(package_name="deltaedit-pipeline")
def cli() -> None:
    """Precompute, train and edit in the manner of DeltaEdit, from cached vectors.

    A first look: deltaedit demo --out demo-out
    """


def main() -> None:
    """Entry point: exit codes as in `deltaedit COMMAND --help`."""
    from flows.exits import run_to_exit_code

    sys.exit(run_to_exit_code(cli))
