"""Run files: several data sets in one YAML file, with the options of the commands.

A section is named as its command and holds that command's options, so that a run file and the
command line say the same thing in the same words, and are converted and checked by the same code.
"""

import contextlib
import difflib
import importlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click

OPTION_SECTIONS = ("precompute", "index", "relevance", "train", "evaluate")
SECTIONS = (*OPTION_SECTIONS, "report")
PLACES = ("sources", "store", "run")
"""What an entry says for all its sections."""
NOT_OPTIONS = {
    "as_json",
    "dry_run",
    "use_prefect",
    "resume",  # a full run accepts what is finished
}
"""Options of commands that mean nothing in a run file."""
WRITES_MORE = {("relevance", "out")}
"""Options that write another file than the store or the run."""


@dataclass(slots=True)
class _Found:
    """Everything that is wrong with a run file, each with its place."""

    wrong: list[str] = field(default_factory=list)

    def add(self, place: str, message: str) -> None:
        self.wrong.append(f"{place}: {message}")

    def unknown(self, place: str, key: object, known: tuple[str, ...]) -> None:
        near = difflib.get_close_matches(str(key), known, 1)
        hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}"
        self.add(place, f"no such key; {hint}")

    @contextlib.contextmanager
    def at(self, place: str) -> Iterator[None]:
        """What is raised in the block is wrong with `place`."""
        try:
            yield
        except click.ClickException as error:
            self.add(place, error.format_message())
        except ValueError as error:
            self.add(place, str(error))

    def mapping(self, place: str, value: object, known: tuple[str, ...] = ()) -> dict[str, Any]:
        """`value` if it is a mapping; its keys must be among `known`, where some are given."""
        if value is None:
            return {}
        if not isinstance(value, dict):
            self.add(place, f"must be a mapping of keys to values, is {value!r}")
            return {}
        for key in value:
            if known and key not in known:
                self.unknown(f"{place}.{key}", key, known)
        return value


def read_run_file(path: Path) -> Any:
    """The `FullRunConfig` that a run file describes.

    Paths are relative to the file's own folder.

    Raises:
        UsageError: naming everything that is wrong with the file, each with its place.
    """
    from flows.steps.full_run import FullRunConfig

    found = _Found()
    configs: list[Any] = []
    document = found.mapping("file", _load(path), ("defaults", "entries"))
    defaults = found.mapping("defaults", document.get("defaults"), OPTION_SECTIONS)
    entries = found.mapping("entries", document.get("entries"))
    if not entries:
        found.add("entries", "name at least one")
    with contextlib.chdir(path.parent):
        for name, entry in entries.items():
            place = f"entries.{name}"
            keys = found.mapping(place, entry, (*PLACES, *SECTIONS))
            configs += _entry(found, str(name), keys, defaults)
    if not found.wrong:
        with found.at("entries"):
            return FullRunConfig(entries=tuple(configs))
    raise click.UsageError(f"{path}:\n  " + "\n  ".join(dict.fromkeys(found.wrong)))


def _entry(
    found: _Found, name: str, entry: Mapping[str, Any], defaults: Mapping[str, Any]
) -> list[Any]:
    """The `EntryConfig` of one entry; nothing if it is wrong."""
    from flows.steps.full_run import EntryConfig

    before, place = len(found.wrong), f"entries.{name}"
    for key in ("sources", "store"):
        if not entry.get(key):
            found.add(f"{place}.{key}", "must be given")
    store = _absolute(entry.get("store"))
    run = _absolute(entry.get("run") or store.removesuffix(".store") + ".run")
    sources = entry.get("sources")
    sources = tuple(map(_absolute, sources if isinstance(sources, list) else [sources]))
    fixed = {
        "precompute": {"sources": sources, "store": Path(store)},
        "index": {"store": Path(store)},
        "relevance": {"store": Path(store)},
        "train": {"store": Path(store), "run": Path(run), "resume": True},
        "evaluate": {"run": Path(run)},
    }
    left_out = {section for section in SECTIONS[1:] if entry.get(section) is False}
    left_out |= {"evaluate"} if "train" in left_out else set()
    configs = {}
    for section in (s for s in OPTION_SECTIONS if s not in left_out):
        options = {
            str(key).replace("_", "-"): (f"{at}.{key}", value)
            for at, given in (
                (f"defaults.{section}", defaults.get(section)),
                (f"{place}.{section}", entry.get(section)),
            )
            for key, value in found.mapping(at, given).items()
        }
        with found.at(f"{place}.{section}"):
            configs[section] = _configure(found, section, options, fixed[section])
    if "report" not in left_out:
        target = Path(store if "train" in left_out else run)
        given = found.mapping(f"{place}.report", entry.get("report"), ("out",))
        configs["report"] = _report(target, given.get("out"))
    if len(found.wrong) == before:
        with found.at(place):
            return [EntryConfig(name=name, **configs)]
    return []


def _report(target: Path, out: object) -> Any:
    from flows.steps.stages import ReportConfig

    return ReportConfig(target=target, out=Path(_absolute(out)) if out else target)


def _configure(
    found: _Found,
    section: str,
    given: Mapping[str, tuple[str, Any]],
    fixed: Mapping[str, Any],
) -> Any:
    """A stage's configuration from its command's own options, each given with its place."""
    module = importlib.import_module(f"flows.commands.{section}")
    options = {
        parameter.opts[0].removeprefix("--"): parameter
        for parameter in module.command.params
        if isinstance(parameter, click.Option)
        and parameter.name not in NOT_OPTIONS
        and (section, parameter.name) not in WRITES_MORE
    }
    parser = click.Command(section, params=[*options.values()], add_help_option=False)
    arguments: list[str] = []
    for key, (place, value) in given.items():
        if key not in options:
            found.unknown(place, key, tuple(options))
            continue
        with found.at(place):
            words = _as_arguments(key, value, options[key])
            parser.make_context(section, [*words])  # alone, so that every key is reported
            arguments += words
    return module.configure(**fixed, **parser.make_context(section, arguments).params)


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


def _absolute(source: object) -> str:
    """A path or source that holds from any working folder; `sampled:` and addresses as they are."""
    text = str(source)
    if text.startswith("sampled:") or "://" in text:
        return text
    if text.startswith("@"):
        return "@" + _absolute(text[1:])
    return os.path.abspath(text)  # noqa: PTH100 - a pattern, which is no path yet


def _load(path: Path) -> Any:
    """The YAML document.

    Raises:
        UsageError: it is not YAML, or says one key twice.
    """
    import yaml

    class Loader(yaml.SafeLoader):
        """YAML in which a key stands once; PyYAML lets the last one win."""

        def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:  # noqa: FBT001, FBT002
            keys = [self.construct_object(key, deep=deep) for key, _value in node.value]
            twice = {str(key) for key in keys if keys.count(key) > 1}
            if twice:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {', '.join(sorted(twice))} stands twice", node.start_mark
                )
            return super().construct_mapping(node, deep)

    try:
        return yaml.load(path.read_text(encoding="utf-8"), Loader)  # noqa: S506 - a SafeLoader
    except yaml.YAMLError as error:
        raise click.UsageError(f"{path} is not a run file: {error}") from error
