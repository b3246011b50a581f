"""Files that `repair` set aside: kept whole, out of the store's way, each with the reason."""

import json
from collections.abc import Iterable, Mapping, Sequence
from itertools import count
from typing import Any

from stores.atomic import make_folder, move, sync_folder, write_atomic
from stores.layout import Layout
from stores.places import StorePath, name_below

_REASON = "reason.json"


def set_aside(
    layout: Layout, label: str, files: Iterable[StorePath], reason: Mapping[str, Any]
) -> StorePath:
    """Move files of a store into a new folder of its quarantine, under the paths they had.

    Args:
        layout: The store's paths.
        label: What the folder is called, before a number of its own.
        files: Files of the store in the order in which they go; those that are gone are skipped.
        reason: What is kept as `reason.json`, written before anything moves.

    Returns:
        The folder.

    Raises:
        OutOfSpaceError: There is no room for the reason.
    """
    make_folder(layout.quarantine)
    folder = next(
        folder
        for number in count(1)
        if not (folder := layout.quarantine / f"{label}.{number}").exists()
    )
    make_folder(folder)
    write_atomic(folder / _REASON, json.dumps(dict(reason), indent=1).encode())
    sync_folder(layout.quarantine)
    for file in files:
        if file.exists():
            target = folder / name_below(file, layout.root)
            make_folder(target.parent)
            move(file, target)
    sync_folder(folder)
    return folder


def shard_reason(number: int, problems: Sequence[str], keys: Sequence[str]) -> dict[str, Any]:
    """The reason of a shard: what was wrong, and the keys of its inputs where they are known."""
    return {"number": number, "problems": list(problems), "inputs": list(keys)}


def shards_set_aside(layout: Layout) -> dict[int, list[str]]:
    """Keys of the inputs of the shards in quarantine, by number; of the last one of a number.

    A plan makes such a shard again from the same inputs. It could cut them in another way as well,
    so a folder that was emptied or changed by hand does no harm.
    """
    found: dict[int, list[str]] = {}
    folders = layout.quarantine.glob(f"{layout.name}-*.*") if layout.quarantine.is_dir() else ()
    for folder in sorted(folders, key=lambda folder: (len(folder.name), folder.name)):
        number = layout.number(folder.name)
        keys = _keys(folder / _REASON)
        if number is not None and keys:
            found[number] = keys
    return dict(sorted(found.items()))


def _keys(path: StorePath) -> list[str]:
    try:
        return [str(key) for key in json.loads(path.read_bytes())["inputs"]]
    except (OSError, ValueError, KeyError, TypeError):
        return []
