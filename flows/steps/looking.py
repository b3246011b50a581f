"""The pictures behind the keys of a store: the source images, or their reconstructions."""

from collections.abc import Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from flows.steps.origin import load_stored_models, stored_config
from flows.steps.sampled import SAMPLED
from pipeline.errors import ImageError
from pipeline.images import decode_image, to_square, to_uint8
from stores.errors import ObjectStoreError, SourceError
from stores.found import IMAGE_SUFFIXES
from stores.keys import key_of_name, name_of_key
from stores.patterns import paths_of
from stores.places import StorePath, is_url
from stores.reader import StoreReader
from stores.sources import SourceItem, read_image_bytes, scan_images
from stores.tar_members import SEPARATOR, Member, is_tar, tar_members

if TYPE_CHECKING:
    from pipeline.models.stylegan2 import Generator

TILE = 128
RENDER_BATCH = 16


class StorePictures:
    """Pictures of a store's rows, [TILE, TILE, 3] uint8.

    The source image where it is still readable, else the generator's reconstruction from W+ and S,
    which needs no source at all.
    """

    def __init__(self, store: StorePath) -> None:
        self.reader = StoreReader(store)
        self._sources = [str(source) for source in stored_config(store)["sources"]]
        self._contents: dict[str, dict[str, SourceItem]] = {}

    def of_keys(self, keys: Sequence[str]) -> list[np.ndarray]:
        """One picture per key, in order."""
        found = [self.source(key) for key in keys]
        lost = [key for key, picture in zip(keys, found, strict=True) if picture is None]
        rendered = iter(self.reconstruct(lost) if lost else ())
        return [next(rendered) if picture is None else picture for picture in found]

    def reconstruct(self, keys: Sequence[str]) -> list[np.ndarray]:
        """The generator's pictures of the rows `keys`.

        Raises:
            SchemaMismatchError: the store has no column w_plus or s.
        """
        rows = [self.reader.index_of(key) for key in keys]
        codes = self.reader.rows(rows, ["w_plus", "s"])
        generator = load_stored_models(self.reader.path).encoders.generator
        assert generator is not None, "whoever stored s had a generator"
        pictures = render(generator, codes["s"], codes["w_plus"])
        return [to_square(picture, TILE) for picture in pictures]

    def source(self, key: str) -> np.ndarray | None:
        """The source image of a key as a tile, if it is still where it was."""
        picture = self.original(key)
        return None if picture is None else to_square(picture, TILE)

    def original(self, key: str) -> np.ndarray | None:
        """The source image of a key, [H, W, 3] uint8 of its own size, if it is still there."""
        for item in self._places(key):
            try:
                return decode_image(read_image_bytes(item))
            except (ImageError, ObjectStoreError, SourceError):
                continue
        return None

    def _places(self, key: str) -> list[SourceItem]:
        """Where the image of a key can be; looking there is cheaper than listing the sources."""
        known = (self._members(key.partition(SEPARATOR)[0]), self._listed)
        places = [items[key] for items in known if key in items]
        for source in self._sources:
            if source.startswith((SAMPLED, "@")):
                continue
            if is_url(source):
                place = f"{source.rstrip('/')}/{name_of_key(key)}"
                places += [SourceItem(key, source if Path(source).name == key else place)]
                continue
            path = Path(source) / name_of_key(key)
            places += [SourceItem(key, str(path))] if path.exists() else []
            is_file = Path(source).name == key and Path(source).is_file()
            places += [SourceItem(key, source)] if is_file else []
        return places

    def _members(self, tar_key: str) -> dict[str, SourceItem]:
        """The images by key of one tar among the sources; each tar is listed once."""
        if tar_key not in self._tars:
            return {}
        path, name = self._tars[tar_key]
        if tar_key not in self._contents:
            self._contents[tar_key] = {
                found.key: SourceItem(
                    found.key, path, found.size_bytes, offset_bytes=found.offset_bytes
                )
                for found in tar_members(path, name, IMAGE_SUFFIXES)
                if isinstance(found, Member)
            }
        return self._contents[tar_key]

    @cached_property
    def _tars(self) -> dict[str, tuple[str, str]]:
        """Paths and names of the tars among the sources, by key."""
        found: dict[str, tuple[str, str]] = {}
        for source in self._sources:
            with suppress(ObjectStoreError, SourceError):  # gone, or no path at all
                tars = [(path, name) for path, name in paths_of(source) if is_tar(name)]
                found |= {key_of_name(name): (path, name) for path, name in tars}
        return found

    @cached_property
    def _listed(self) -> dict[str, SourceItem]:
        """What the sources that are lists name, by key."""
        lists = [source for source in self._sources if source.startswith("@")]
        try:
            return {item.key: item for item in scan_images(lists).items}
        except SourceError:
            return {}  # the list is gone; the store still shows what it encoded


def render(generator: "Generator", s: np.ndarray, w_plus: np.ndarray) -> np.ndarray:
    """Codes [N, S] and [N, L, D] float32 -> pictures [N, size, size, 3] uint8."""
    import torch

    device = next(generator.parameters()).device
    batches = []
    for begin in range(0, len(s), RENDER_BATCH):
        block = slice(begin, begin + RENDER_BATCH)
        with torch.inference_mode():
            images = generator.synthesize(
                torch.from_numpy(s[block]).to(device), torch.from_numpy(w_plus[block]).to(device)
            )
            batches.append(to_uint8(images).cpu().numpy())
    return np.concatenate(batches)
