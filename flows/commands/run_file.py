"""Run files: several data sets in one YAML file, with the options of the commands.

A section is named as its command and holds that command's options, so that a run file and the
command line say the same thing in the same words, and are converted and checked by the same code.
"""

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from flows.commands.problems import Problems
from flows.commands.run_section import check_options, configure_section
from flows.config import cache_folder
from stores.places import StorePath, store_path

OPTION_SECTIONS = ("precompute", "index", "relevance", "train", "evaluate")
SECTIONS = (*OPTION_SECTIONS, "report")
PLACES = ("sources", "store", "run")
"""What an entry says for all its sections."""


def read_run_file(path: Path) -> Any:
    """The `FullRunConfig` that a run file describes.

    Paths are relative to the file's own folder.

    Raises:
        UsageError: naming everything that is wrong with the file, each with its place.
    """
    from flows.steps.full_run import FullRunConfig

    found = Problems()
    config, configs = None, []
    document = found.mapping("file", _load(path, found), ("defaults", "entries"))
    defaults = found.mapping("defaults", document.get("defaults"), OPTION_SECTIONS)
    entries = found.mapping("entries", document.get("entries"))
    if not entries:
        found.add("entries", "name at least one")
    with contextlib.chdir(path.parent):
        for name, entry in entries.items():
            keys = found.mapping(f"entries.{name}", entry, (*PLACES, *SECTIONS))
            configs += _entry(found, str(name), keys, defaults)
        for section in [s for s in OPTION_SECTIONS if s in defaults]:
            check_options(found, section, _options(found, f"defaults.{section}", defaults[section]))
    if configs:
        with found.at("entries"):
            config = FullRunConfig(entries=tuple(configs))
    if found.wrong:
        raise click.UsageError(f"{path}:\n  " + "\n  ".join(dict.fromkeys(found.wrong)))
    return config


def _entry(
    found: Problems, name: str, entry: Mapping[str, Any], defaults: Mapping[str, Any]
) -> list[Any]:
    """The `EntryConfig` of one entry; nothing if it is wrong."""
    from flows.steps.full_run import EntryConfig

    before, place = len(found.wrong), f"entries.{name}"
    fixed, run = _places(found, place, name, entry)
    left_out = {section for section in SECTIONS[1:] if entry.get(section) is False}
    left_out |= {"evaluate"} if "train" in left_out else set()
    configs = {}
    for section in (s for s in OPTION_SECTIONS if s not in left_out):
        at = f"{place}.{section}"
        options = _options(found, f"defaults.{section}", defaults.get(section))
        options |= _options(found, at, entry.get(section))
        configs[section] = configure_section(found, section, at, options, fixed[section])
    if "report" not in left_out:
        target = fixed["precompute"]["store"] if "train" in left_out else run
        configs["report"] = _report(found, f"{place}.report", entry.get("report"), target)
    if len(found.wrong) == before:
        with found.at(place):
            return [EntryConfig(name=name, **configs)]
    return []


def _places(
    found: Problems, place: str, name: str, entry: Mapping[str, Any]
) -> tuple[dict[str, dict[str, Any]], Path]:
    """What an entry says for each section's command, and the folder of its run."""
    for key in ("sources", "store"):
        if not entry.get(key):
            found.add(f"{place}.{key}", "must be given")
    # The name stands in for what is missing, so that the sections are looked at, too.
    listed = entry.get("sources") or name
    listed = listed if isinstance(listed, list) else [listed]
    sources = tuple(_absolute(found.text(f"{place}.sources", source)) for source in listed)
    store_text = _absolute(found.text(f"{place}.store", entry.get("store") or name))
    store: StorePath = Path(store_text)
    with found.at(f"{place}.store"):
        store = store_path(store_text, cache_folder())
    needs_run = not isinstance(store, Path) and entry.get("train") is not False
    if needs_run and not entry.get("run"):
        found.add(f"{place}.run", "must be given: a run is a folder on a disk, this store is not")
    beside = store_text.removesuffix(".store") + ".run"
    run = Path(_absolute(found.text(f"{place}.run", entry.get("run") or beside)))
    at_store = {"store": store}
    fixed = {
        "precompute": at_store | {"sources": sources},
        "index": at_store,
        "relevance": at_store,
        "train": at_store | {"run": run, "resume": True},
        "evaluate": {"run": run},
    }
    return fixed, run


def _options(found: Problems, place: str, section: object) -> dict[str, tuple[str, Any]]:
    """A section's options under their names on the command line, each with its place."""
    return {
        str(key).replace("_", "-"): (f"{place}.{key}", value)
        for key, value in found.mapping(place, section).items()
    }


def _report(found: Problems, place: str, section: object, target: StorePath) -> Any:
    """Where the page of an entry is written; nothing if that is wrong."""
    from flows.steps.stages import ReportConfig

    out = found.mapping(place, section, ("out",)).get("out")
    if out is not None:
        folder = _absolute(found.text(f"{place}.out", out))
        return ReportConfig(target=target, out=Path(folder))
    if isinstance(target, Path):
        return ReportConfig(target=target, out=target)
    found.add(f"{place}.out", "must be given: the store is no folder on a disk")
    return None


def _absolute(source: object) -> str:
    """A path or source that holds from any working folder; `sampled:` and addresses as they are."""
    text = str(source)
    if text.startswith("sampled:") or "://" in text:
        return text
    if text.startswith("@"):
        return "@" + _absolute(text[1:])
    return os.path.abspath(text)  # noqa: PTH100 - a pattern, which is no path yet


def _load(path: Path, found: Problems) -> Any:
    """The YAML document; keys that stand twice are told to `found`.

    Raises:
        UsageError: it is not YAML.
    """
    import yaml

    class Loader(yaml.SafeLoader):
        """YAML in which a key should stand once; PyYAML silently lets the last one win."""

        def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:  # noqa: FBT001, FBT002
            keys = [self.construct_object(key, deep=deep) for key, _value in node.value]
            for key in {str(key) for key in keys if keys.count(key) > 1}:
                found.add(f"line {node.start_mark.line + 1}", f"the key {key} stands twice")
            return super().construct_mapping(node, deep)

    try:
        return yaml.load(path.read_text(encoding="utf-8"), Loader)  # noqa: S506 - a SafeLoader
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise click.UsageError(f"{path} is not a run file: {error}") from error
