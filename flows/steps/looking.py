"""The pictures behind the keys of a store: the source images, or their reconstructions."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from flows.models import ModelOptions, load_models
from flows.steps.origin import SAMPLED, stored_config, stored_models
from pipeline.errors import ImageError
from pipeline.images import decode_image, to_square, to_uint8
from stores.errors import SourceError
from stores.reader import StoreReader
from stores.sources import SourceItem, read_image_bytes, scan_images

TILE = 128


class StorePictures:
    """Pictures of a store's rows, [TILE, TILE, 3] uint8.

    The source image where it is still readable, else the generator's reconstruction from W+ and S,
    which needs no source at all.
    """

    def __init__(self, store: Path) -> None:
        self.reader = StoreReader(store)
        self.options = stored_models(store)
        self._items = _source_items(stored_config(store)["sources"])

    def of_keys(self, keys: Sequence[str]) -> list[np.ndarray]:
        """One picture per key, in order."""
        return [self._source(key) if self._has(key) else self.reconstruct([key])[0] for key in keys]

    def reconstruct(self, keys: Sequence[str]) -> list[np.ndarray]:
        """The generator's pictures of the rows `keys`."""
        rows = [self.reader.index_of(key) for key in keys]
        codes = self.reader.rows(rows, ["w_plus", "s"])
        pictures = render(self.options, codes["s"], codes["w_plus"])
        return [to_square(picture, TILE) for picture in pictures]

    def _has(self, key: str) -> bool:
        return key in self._items

    def _source(self, key: str) -> np.ndarray:
        try:
            return to_square(decode_image(read_image_bytes(self._items[key])), TILE)
        except (ImageError, SourceError):
            return self.reconstruct([key])[0]


def _source_items(sources: list[str]) -> dict[str, SourceItem]:
    if sources[0].startswith(SAMPLED):
        return {}
    try:
        return {item.key: item for item in scan_images(sources).items}
    except SourceError:
        return {}  # the data set is gone; the store still shows what it encoded


def render(options: ModelOptions, s: np.ndarray, w_plus: np.ndarray) -> np.ndarray:
    """Codes [N, S] and [N, L, D] -> pictures [N, size, size, 3] uint8."""
    generator = load_models(options).encoders.generator
    assert generator is not None
    device = next(generator.parameters()).device
    with torch.inference_mode():
        images = generator.synthesize(
            torch.from_numpy(s).to(device), torch.from_numpy(w_plus).to(device)
        )
    return to_uint8(images).cpu().numpy()
