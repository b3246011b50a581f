"""Options that several commands share, and how they print."""

import json
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from flows.commands.problems import Checks
from stores.errors import StoreError
from stores.places import StorePath, store_path


class StorePathType(click.Path):
    """A folder, or the URL of a place in an object store."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Text to a `StorePath`."""
        from flows.config import cache_folder

        try:
            return store_path(os.fsdecode(super().convert(value, param, ctx)), cache_folder())
        except StoreError as error:
            self.fail(str(error), param, ctx)


def existing_store(
    _context: click.Context, _parameter: click.Parameter, value: StorePath | tuple[StorePath, ...]
) -> StorePath | tuple[StorePath, ...]:
    """Refuse a path, or one of several, where no store is."""
    from stores.contents import is_store

    for path in (value,) if isinstance(value, StorePath) else value:
        if not is_store(path):
            raise click.UsageError(
                f"{path} is not a store: it has no manifest.json. Check the path, or make the "
                f"store with: deltaedit precompute SOURCE... {path}"
            )
    return value


STORE_PATH = StorePathType()
STORE = click.argument("store", type=STORE_PATH, callback=existing_store)
RUN = click.argument("run", type=click.Path(path_type=Path, file_okay=False))
JSON = click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON object.")
DRY_RUN = click.option("--dry-run", is_flag=True, help="Say what would be done, and stop.")
PREFECT = click.option(
    "--prefect", "use_prefect", is_flag=True, help="Record the run in Prefect, as a flow."
)
SEED = click.option("--seed", type=int, default=0, show_default=True, help="Seed of all choices.")
SHEET = click.option(
    "--sheet", type=click.Path(path_type=Path), help="Write a contact sheet (PNG) here."
)


def format_option(**attributes: Any) -> Callable[[Callable], Callable]:
    """`--format`: what the shards of a new store are."""
    return click.option(
        "--format",
        "shard_format",
        type=click.Choice(["hdf5", "webdataset"]),
        help="Shards of a new store: HDF5 (random access) or WebDataset tar.",
        **attributes,
    )


def dtype_option(**attributes: Any) -> Callable[[Callable], Callable]:
    """`--dtype`: what a new store keeps its codes as."""
    return click.option(
        "--dtype",
        type=click.Choice(["float32", "float16"]),
        help="Codes of a new store; float16 takes half the room, z-scored by channel (differences "
        "have 0.02 to 0.03 % error). clip stays float32.",
        **attributes,
    )


def model_file_options(command: Callable) -> Callable:
    """The options that choose model files and where they run."""
    options = [
        click.option("--models", help="A registered set of models: avatar, ffhq, ..."),
        click.option("--clip", help="An open_clip model and local weights: MODEL[:WEIGHTS]."),
        click.option("--encoder", type=click.Path(path_type=Path), help="An e4e checkpoint."),
        click.option(
            "--generator", type=click.Path(path_type=Path), help="A StyleGAN2 checkpoint."
        ),
        click.option("--device", default="auto", show_default=True, help="auto, cpu or cuda[:i]."),
        click.option(
            "--precision",
            type=click.Choice(["auto", "float32", "bfloat16", "float16"]),
            default="auto",
            show_default=True,
            help="Precision of the CLIP image tower.",
        ),
        click.option(
            "--e4e-precision",
            type=click.Choice(["float32", "bfloat16", "float16"]),
            default="float32",
            show_default=True,
            help="Precision of e4e; half is two to three times as fast and costs about 1 % of a "
            "code.",
        ),
    ]
    for option in reversed(options):
        command = option(command)
    return command


def take_model_file_options(
    options: dict[str, Any], *, required: bool = False, **others: Any
) -> Any:
    """Remove the values of `model_file_options` and build a `flows.models.ModelOptions`.

    Args:
        options: a command's options.
        required: whether it is a usage error to name no model.
        others: the remaining fields of the config.

    Returns:
        The config; None where no model is named.
    """
    from flows.models import ModelOptions

    named = ("models", "clip", "encoder", "generator")
    taken = {name: options.pop(name) for name in (*named, "device", "precision", "e4e_precision")}
    for name in ("encoder", "generator"):
        taken[name] = taken[name].absolute() if taken[name] else None
    if taken["clip"] and ":" in taken["clip"]:
        model, _, weights = taken["clip"].partition(":")
        taken["clip"] = f"{model}:{Path(weights).absolute()}"
    if not required and not any(taken[name] for name in named):
        return None
    return checked(ModelOptions, **taken, **others)


def model_options(command: Callable) -> Callable:
    """`model_file_options` and what they compute: together a `flows.models.ModelOptions`."""
    options = [
        click.option(
            "--columns", default="clip,w_plus,s", show_default=True, help="Columns to compute."
        ),
        click.option(
            "--clip-pre",
            type=click.Choice(["official", "box7"]),
            default="official",
            show_default=True,
            help="CLIP image pre-processing; box7 is what published mappers need.",
        ),
    ]
    for option in reversed(options):
        command = option(command)
    return model_file_options(command)


def take_model_options(options: dict[str, Any]) -> Any:
    """Remove the values of `model_options` from a command's options and build their config."""
    columns = tuple(c.strip() for c in options.pop("columns").split(",") if c.strip())
    clip_pre = options.pop("clip_pre")
    return take_model_file_options(options, required=True, columns=columns, clip_pre=clip_pre)


_PAIR_OPTIONS = (
    click.option(
        "--policy",
        default="random",
        show_default=True,
        help="random is the paper's; nearest draws among the k nearest; band between two "
        "similarities; direction follows --to. Mixtures: random:0.7,nearest:0.3.",
    ),
    click.option(
        "--num-neighbours",
        type=int,
        default=16,
        show_default=True,
        help="Targets per row that nearest and direction choose from.",
    ),
    click.option("--to", "to_text", help="Text that policy direction leads to."),
    click.option("--from", "from_text", help="Text it starts from (default: the domain's word)."),
    click.option(
        "--direction-share",
        type=float,
        default=0.1,
        show_default=True,
        help="Share of the best pairs that policy direction keeps.",
    ),
    click.option(
        "--min-similarity",
        type=float,
        default=-1.0,
        show_default=True,
        help="Least CLIP cosine of a pair (all policies but random).",
    ),
    click.option(
        "--max-similarity",
        type=float,
        default=1.0,
        show_default=True,
        help="Largest CLIP cosine of a pair; keeps near-duplicates out.",
    ),
)


def pair_options(command: Callable) -> Callable:
    """The options that choose pairs; together they make a `pipeline.pairs.PairConfig`."""
    for option in reversed(_PAIR_OPTIONS):
        command = option(command)
    return command


def take_pair_config(options: dict[str, Any], *, store: StorePath, seed: int) -> Any:
    """Remove the values of `pair_options` from a command's options and build their config."""
    from pipeline.pairs import PairConfig

    names = ("policy", "num_neighbours", "min_similarity", "max_similarity", "direction_share")
    taken = {name: options.pop(name) for name in names}
    source, target = options.pop("from_text"), options.pop("to_text")
    if "direction" in taken["policy"] and target:
        from flows.steps.directions import store_direction

        taken["direction"] = store_direction(store, source=source, target=target)
    elif source or target:
        raise click.UsageError("--from and --to belong to --policy direction, which needs --to")
    return checked(PairConfig, **taken, seed=seed)


def checked(config: type, **values: Any) -> Any:
    """Build a config; what is wrong with its values becomes a usage error (exit code 2)."""
    return Checks().whole(config, **values)


def show_config(config: Any) -> None:
    """Print the resolved configuration before any work starts."""
    from flows.config import resolved_text

    click.echo(resolved_text(config), err=True)


def print_result(result: dict[str, Any], *, as_json: bool) -> None:
    """A result for machines (one JSON object) or for people (aligned lines)."""
    if as_json:
        click.echo(json.dumps(result, default=str))
        return
    width = max((len(name) for name in result), default=0)
    for name, value in result.items():
        lines = value if isinstance(value, list | tuple) else [value]
        for place, line in enumerate(lines or ["-"]):
            click.echo(f"{'' if place else name:<{width}}  {_flat(line)}")


def _flat(value: Any) -> Any:
    is_table = isinstance(value, dict)
    return ", ".join(f"{name} {item}" for name, item in value.items()) if is_table else value


def aligned(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Rows of named values as the lines of a table with heads, "-" where a row lacks a value."""
    heads = list(dict.fromkeys(name for row in rows for name in row))
    lines = [heads, *([str(row.get(name, "-")) for name in heads] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    ]


def start_logging() -> None:
    """Log lines of this project to standard error, and nothing else's chatter."""
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    logging.getLogger("deltaedit").setLevel(logging.INFO)
