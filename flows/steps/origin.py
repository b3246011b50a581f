"""What a store knows about where it came from: its precompute run and the models behind it."""

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from flows.config import resolved_text
from flows.models import LoadedModels, ModelOptions, load_models
from flows.steps.sampled import SAMPLED
from stores.blobs import read_blob, write_blob
from stores.places import StorePath
from stores.store import Store

CONFIG_BLOB = "precompute.json"
ORIGIN_BLOB = "models.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class Origin:
    """What work on a store's vectors needs to know without loading a model."""

    s_widths: tuple[int, ...]
    """Style channels of each generator layer, in the order of column s; empty without that."""
    neutral: str
    """The domain's neutral word for text directions."""


def write_origin(store: Store, config: Any, models: LoadedModels) -> None:
    """Keep a precompute run's configuration and the shape of its models in the store."""
    generator = models.encoders.generator
    widths = generator.layout.widths if generator else ()
    origin = Origin(s_widths=tuple(widths), neutral=models.neutral)
    write_blob(store, ORIGIN_BLOB, json.dumps(asdict(origin)).encode(), {})
    write_blob(store, CONFIG_BLOB, resolved_text(_portable(config)).encode(), {})


def _portable(config: Any) -> Any:
    """The configuration with paths that hold from any working folder."""
    sources = tuple(
        source
        if source.startswith(SAMPLED)
        else "@" + str(Path(source[1:]).absolute())
        if source.startswith("@")
        else str(Path(source).absolute())
        for source in config.sources
    )
    return replace(config, sources=sources, store=config.store.absolute())


def read_origin(store: StorePath) -> Origin:
    """The inverse of `write_origin`.

    Raises:
        StoreError: the store was not made by precompute.
    """
    saved = json.loads(read_blob(Store.open(store), ORIGIN_BLOB))
    return Origin(s_widths=tuple(saved["s_widths"]), neutral=saved["neutral"])


def stored_config(store: StorePath) -> dict[str, Any]:
    """The configuration of the last precompute run, as JSON values."""
    return json.loads(read_blob(Store.open(store), CONFIG_BLOB))


def stored_models(store: StorePath) -> ModelOptions:
    """The models that a store was made with."""
    saved: dict[str, Any] = dict(stored_config(store)["models"])
    for name in ("encoder", "generator"):
        saved[name] = Path(saved[name]) if saved[name] else None
    saved["columns"] = tuple(saved["columns"])
    return ModelOptions(**saved)


def load_stored_models(store: StorePath, *, for_images: bool = False) -> LoadedModels:
    """Load the models that a store was made with.

    Args:
        store: its folder.
        for_images: whether image files will be encoded; a store of samples is made without the
            encoder that this takes.
    """
    sampled = str(stored_config(store)["sources"][0]).startswith(SAMPLED)
    return load_models(stored_models(store), sampled=sampled and not for_images)
