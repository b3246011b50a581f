"""Text directions of a store, computed by its CLIP once and kept beside its rows.

Pairs that follow a text can then be drawn, and a mapper trained on them, where there is no CLIP.
"""

import json
import logging
from dataclasses import asdict

from flows.steps.origin import read_origin
from pipeline.errors import PipelineError
from pipeline.pairs.config import TextDirection
from stores.blobs import list_blobs, read_blob, write_blob
from stores.errors import StoreError
from stores.places import StorePath
from stores.store import Store

DIRECTIONS_BLOB = "directions.json"

log = logging.getLogger("deltaedit")


def store_direction(path: StorePath, *, source: str | None, target: str) -> TextDirection:
    """The direction from `source` (default: the domain's neutral word) to `target`.

    Raises:
        PipelineError: the direction is not kept yet, and the store was made without CLIP.
        PromptError: a text is too long or empty, or the two mean the same.
    """
    store = Store.open(path)
    source = source or read_origin(path).neutral
    kept = _read(store)
    found = next((k for k in kept if (k.source, k.target) == (source, target)), None)
    if found is not None:
        return found
    computed = _compute(path, source, target)
    try:
        _write(store, [*kept, computed])
    except StoreError as error:
        log.warning("the direction to %r is not kept for another time: %s", target, error)
    return computed


def _compute(path: StorePath, source: str, target: str) -> TextDirection:
    from flows.steps.origin import load_stored_models
    from pipeline.editing import text_direction

    clip = load_stored_models(path).encoders.clip
    if clip is None:
        raise PipelineError(f"{path} was made without CLIP: it knows no way to {target!r}")
    vector = text_direction(clip, target, source).unit.cpu().numpy()
    return TextDirection.of(source, target, vector)


def _read(store: Store) -> list[TextDirection]:
    if DIRECTIONS_BLOB not in list_blobs(store):
        return []
    return [TextDirection(**kept) for kept in json.loads(read_blob(store, DIRECTIONS_BLOB))]


def _write(store: Store, directions: list[TextDirection]) -> None:
    data = json.dumps([asdict(direction) for direction in directions], indent=1).encode()
    made_from = {"clip": store.header.fingerprints["clip"]}
    write_blob(store, DIRECTIONS_BLOB, data, made_from)
