"""What a store knows about where it came from: its precompute run and the models behind it."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from flows.config import resolved_text
from flows.models import LoadedModels, ModelOptions, load_models
from flows.steps.sampled import SAMPLED
from stores.blobs import list_blobs, read_blob, write_blob
from stores.errors import StoreError
from stores.places import StorePath, is_url, without_file_scheme
from stores.store import Store

CONFIG_BLOB = "precompute.json"
ORIGIN_BLOB = "models.json"
IMPORTED = "layout"
"""A member that only the configuration of an import has."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Origin:
    """What work on a store's vectors needs to know without loading a model."""

    s_widths: tuple[int, ...]
    """Style channels of each generator layer, in the order of column s; empty without that."""
    neutral: str
    """The domain's neutral word for text directions."""


def origin_of(models: LoadedModels) -> Origin:
    """What a store will know about the models that make it."""
    generator = models.encoders.generator
    widths = generator.layout.widths if generator else ()
    return Origin(s_widths=tuple(widths), neutral=models.neutral)


def write_origin(store: Store, config: Any, origin: Origin) -> None:
    """Keep a precompute run's configuration and the shape of its models in the store."""
    keep_origin(store, portable(config), origin)


def keep_origin(store: Store, config: Any, origin: Origin) -> None:
    """Keep the configuration that made a store, with paths that hold from any working folder."""
    write_blob(store, ORIGIN_BLOB, json.dumps(asdict(origin)).encode(), {})
    write_blob(store, CONFIG_BLOB, resolved_text(config).encode(), {})


def portable(config: Any) -> Any:
    """A precompute run's configuration with paths that hold from any working folder."""
    sources = tuple(map(_absolute, config.sources))
    return replace(config, sources=sources, store=config.store.absolute())


def _absolute(source: str) -> str:
    if source.startswith(SAMPLED):
        return source
    mark = "@" if source.startswith("@") else ""
    place = without_file_scheme(source.removeprefix(mark))
    return mark + (place if is_url(place) else str(Path(place).absolute()))


def merge_origin(stores: Sequence[StorePath], into: StorePath) -> None:
    """Give a merged store the origin of its parts: their models, and the sources of all.

    Stores that were not made by precompute have none to give.
    """
    opened = [Store.open(path) for path in stores]
    known = [store for store in opened if list_blobs(store).keys() >= {CONFIG_BLOB, ORIGIN_BLOB}]
    if not known:
        return
    configs = [json.loads(read_blob(store, CONFIG_BLOB)) for store in known]
    sources = dict.fromkeys(source for config in configs for source in config["sources"])
    merged = configs[0] | {"sources": list(sources), "store": str(into.absolute())}
    target = Store.open(into)
    write_blob(target, ORIGIN_BLOB, read_blob(known[0], ORIGIN_BLOB), {})
    write_blob(target, CONFIG_BLOB, json.dumps(merged, indent=2).encode(), {})


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
    """The models that a store was made with.

    Raises:
        StoreError: its vectors were imported, and nobody said which models belong to them.
    """
    models = stored_config(store)["models"]
    if models is None:
        raise StoreError(
            f"{store} was imported without models, which this needs; import it into another store "
            "with --models (such as ffhq), --clip, --encoder or --generator"
        )
    saved: dict[str, Any] = dict(models)
    for name in ("encoder", "generator"):
        saved[name] = Path(saved[name]) if saved[name] else None
    saved["columns"] = tuple(saved["columns"])
    return ModelOptions(**saved)


def load_stored_models(store: StorePath, *, for_images: bool = False) -> LoadedModels:
    """Load the models that a store was made with.

    Args:
        store: its folder.
        for_images: whether image files will be encoded; a store of samples, or of imported
            vectors, is made without the encoder that this takes.
    """
    config = stored_config(store)
    without_encoder = IMPORTED in config or str(config["sources"][0]).startswith(SAMPLED)
    sampled = without_encoder and not for_images
    return load_models(stored_models(store), sampled=sampled, texts=True)
