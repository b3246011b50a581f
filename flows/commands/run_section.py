"""One section of a run file: a command's options, read and checked by the command's own code."""

import importlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import click

from flows.commands.problems import Problems, problems_of

NOT_OPTIONS = {
    "as_json",
    "dry_run",
    "use_prefect",
    "resume",  # a full run accepts what is finished
}
"""Options of commands that mean nothing in a run file."""
WRITES_MORE = {("relevance", "out")}
"""Options that write another file than the store or the run."""

Given = Mapping[str, tuple[str, Any]]
"""Values of options by name, each with its place in the file."""


def configure_section(
    found: Problems, section: str, place: str, given: Given, fixed: Mapping[str, Any]
) -> Any:
    """A stage's configuration.

    Args:
        found: takes what is wrong, each with its place.
        section: the command's name.
        place: what no single key is to blame for is said of.
        given: the section's options.
        fixed: what the entry says for the command.

    Returns:
        The configuration; None where something is wrong.
    """
    before = len(found.wrong)
    words = check_options(found, section, given)
    module = importlib.import_module(f"flows.commands.{section}")
    parser = _parser(section)

    def build(keys: Sequence[str]) -> Any:
        arguments = [word for key in keys for word in words[key]]
        return module.configure(**fixed, **parser.make_context(section, arguments).params)

    _blame(found, place, {key: given[key][0] for key in words}, build)
    return build([*words]) if len(found.wrong) == before else None


def check_options(found: Problems, section: str, given: Given) -> dict[str, list[str]]:
    """The words that would give the options on the command line; wrong ones are left out."""
    options, parser = _options(section), _parser(section)
    words: dict[str, list[str]] = {}
    for key, (place, value) in given.items():
        if key not in options:
            found.unknown(place, key, tuple(options))
            continue
        with found.at(place):
            arguments = _as_arguments(key, value, options[key])
            parser.make_context(section, [*arguments])  # alone, so that every key is reported
            words[key] = arguments
    return words


def _options(section: str) -> dict[str, click.Option]:
    module = importlib.import_module(f"flows.commands.{section}")
    return {
        parameter.opts[0].removeprefix("--"): parameter
        for parameter in module.command.params
        if isinstance(parameter, click.Option)
        and parameter.name not in NOT_OPTIONS
        and (section, parameter.name) not in WRITES_MORE
    }


def _parser(section: str) -> click.Command:
    return click.Command(section, params=[*_options(section).values()], add_help_option=False)


def _blame(
    found: Problems, section_place: str, places: Mapping[str, str], build: Callable[..., Any]
) -> None:
    """Tell which key is to blame for each thing that is wrong with the values together.

    A key is to blame for what its default makes good. It is left out then, and the others are
    looked at again: nothing stays hidden behind it.
    """
    keys = [*places]
    while wrong := problems_of(lambda: build(keys)):
        cured = {}
        for key in keys:
            left = problems_of(lambda k=key: build([other for other in keys if other != k]))
            cured[key] = [problem for problem in wrong if problem not in left]
        to_blame = [key for key in keys if cured[key]]
        if not to_blame:
            for problem in wrong:
                found.add(section_place, problem)
            return
        # The one with the fewest: a message of two parts changes where one of them is cured.
        key = min(to_blame, key=lambda k: len(cured[k]))
        found.add(places[key], "; ".join(cured[key]))
        keys.remove(key)


def _as_arguments(key: str, value: Any, option: click.Option) -> list[str]:
    """An option as the words that would give it on the command line."""
    if value is None:
        return []  # a key without a value leaves the default
    if option.is_flag:
        if not isinstance(value, bool):
            raise click.UsageError(f"must be true or false, is {value!r}")
        return [f"--{key}"] if value else []
    if isinstance(value, dict):
        raise click.UsageError(f"must be one value, is {value!r}")
    if isinstance(value, list) and option.multiple:
        return [f"--{key}={item}" for item in value]
    return [f"--{key}={','.join(map(str, value)) if isinstance(value, list) else value}"]
