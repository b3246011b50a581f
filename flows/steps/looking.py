"""The pictures behind the keys of a store: the source images, or their reconstructions."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from flows.steps.origin import load_stored_models, stored_config
from flows.steps.sampled import SAMPLED
from pipeline.errors import ImageError
from pipeline.images import decode_image, to_square, to_uint8
from stores.errors import SourceError
from stores.keys import name_of_key
from stores.places import StorePath
from stores.reader import StoreReader
from stores.sources import SourceItem, read_image_bytes, scan_images

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
        """The source image of a key, if it is still where it was."""
        for path in self._places(key):
            try:
                return to_square(decode_image(read_image_bytes(SourceItem(key, path))), TILE)
            except (ImageError, SourceError):
                continue
        return None

    def _places(self, key: str) -> list[str]:
        """Where the image of a key can be; looking there is cheaper than listing the sources."""
        places = [self._listed[key].path] if key in self._listed else []
        for source in self._sources:
            if source.startswith((SAMPLED, "@")):
                continue
            path = Path(source) / name_of_key(key)
            places += [str(path)] if path.exists() else []
            places += [source] if Path(source).is_file() and Path(source).name == key else []
        return places

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
