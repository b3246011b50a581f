"""Results that the user asked for as files, each beside the configuration that made it."""

import json
from pathlib import Path
from typing import Any

from flows.config import as_jsonable
from stores.atomic import make_folder, write_atomic


def write_output(path: Path, data: bytes) -> None:
    """Write a file whole or not at all, making its folder.

    Raises:
        StoreError: the folder cannot be made.
        OutOfSpaceError: there is no room.
    """
    make_folder(path.parent)
    write_atomic(path, data)


def config_path(path: Path) -> Path:
    """Where the configuration of the output `path` is: ``<name>.json`` beside it."""
    return path.with_name(f"{path.name}.json")


def write_config_beside(path: Path, config: Any, **more: Any) -> None:
    """Write ``<name>.json`` beside the output `path`: its configuration, and what else is said."""
    document = as_jsonable({"config": config, **more})
    write_output(config_path(path), json.dumps(document, indent=2).encode())
