"""Train the avatar world's models again: `make world`.

Six stages, each resumable by running the same command again: avatars, attribute reader, CLIP, its
text tower once more, generator and encoder, mapping network. The files that ship are written last.
By the times of its parts, two hours and a half on two cores.
"""

import io
import json
import logging
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, Protocol

import click
import numpy as np
import torch
from torch import Tensor

from flows.config import num_cpus
from flows.steps.progress import Progress
from pipeline.demo import (
    train_autoencoder,
    train_clip,
    train_mapping,
    train_reader,
    train_texts,
)
from pipeline.demo.avatars import Attributes, draw_avatar
from pipeline.demo.export import (
    centre_codes,
    encoder_file,
    generator_file,
    halved_file,
    shift_codes,
)
from pipeline.demo.reader import labels_of
from pipeline.editing import TEMPLATES
from pipeline.images import to_float
from pipeline.models.registry import BUNDLED_FOLDER
from stores.atomic import write_atomic

TRAIN_SEED = 20260
"""Series of the avatars that the models learn from; demos use small seeds."""
NUM_AVATARS = 30_000
CLIP_NAME = "avatar-clip"
CODE_BATCH = 256
SAVE_EVERY = 250

log = logging.getLogger("deltaedit")


class Resumable(Protocol):
    """A training state that can be kept and continued."""

    step: int

    def state_dict(self) -> dict[str, Any]:
        """Tensors and numbers only."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Inverse of `state_dict`."""
        ...


@click.command()
@click.option("--out", type=click.Path(path_type=Path), default=Path("world-out"))
@click.option("--install", is_flag=True, help="Put the files into the package.")
def main(out: Path, *, install: bool) -> None:
    """Train every model of the avatar world; the files appear in OUT."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    out.mkdir(parents=True, exist_ok=True)
    images, people = training_set(out)
    reader = train_world_reader(out, images, people)
    clip = train_world_clip(out, images, people)
    model = train_world_autoencoder(out, images, people)
    shift_codes(model)
    latent_avg = centre_codes(model, to_float(images[: 16 * CODE_BATCH].permute(0, 2, 3, 1)))
    train_world_mapping(model, images, latent_avg)
    files = {
        f"{CLIP_NAME}.safetensors": halved_file(clip),
        "generator.safetensors": generator_file(model, latent_avg),
        "e4e.safetensors": encoder_file(model, latent_avg),
        "reader.safetensors": halved_file(reader),
    }
    for name, data in files.items():
        write_atomic((BUNDLED_FOLDER if install else out) / name, data)
        log.info("%s: %.1f MB", name, len(data) / 1e6)


def training_set(out: Path) -> tuple[Tensor, list[Attributes]]:
    """[N, 3, 64, 64] uint8 avatars and their attributes, rendered once."""
    pixels, listing = out / "avatars.npy", out / "avatars.json"
    if not listing.exists():
        with (
            ProcessPoolExecutor(num_cpus()) as pool,
            Progress("avatars", NUM_AVATARS, unit="images") as progress,
        ):
            drawn = []
            for picture, attributes in pool.map(_draw, range(NUM_AVATARS), chunksize=64):
                drawn.append((picture, attributes))
                progress.advance()
        np.save(pixels, np.stack([picture for picture, _ in drawn]).transpose(0, 3, 1, 2).copy())
        write_atomic(listing, json.dumps([a.as_dict() for _, a in drawn]).encode())
    people = [Attributes(**values) for values in json.loads(listing.read_text())]
    return torch.from_numpy(np.load(pixels)), people


def _draw(index: int) -> tuple[np.ndarray, Attributes]:
    avatar = draw_avatar(TRAIN_SEED, index)
    return avatar.pixels(), avatar.attributes


def train_world_reader(out: Path, images: Tensor, people: list[Attributes]) -> torch.nn.Module:
    """The attribute reader, trained on drawings and their truth."""
    config = train_reader.ReaderTrainingConfig()
    state = train_reader.ReaderTrainingState(config)
    keeper = Keeper(out / "reader.pt", state, config.num_images // config.batch_size)
    train_reader.train(state, images, labels_of(people), config, keeper)
    return state.model.eval()


def train_world_clip(out: Path, images: Tensor, people: list[Attributes]) -> torch.nn.Module:
    """The avatar CLIP, trained on pictures and captions."""
    import open_clip

    config = train_clip.ClipTrainingConfig()
    open_clip.add_model_config(BUNDLED_FOLDER / f"{CLIP_NAME}.json")
    torch.manual_seed(config.seed)
    model: Any = open_clip.create_model(CLIP_NAME)
    recipe = model.visual.preprocess_cfg
    mean, std = (torch.tensor(recipe[name])[:, None, None] for name in ("mean", "std"))
    state = train_clip.start(model, config)
    keeper = Keeper(out / "clip.pt", state, config.num_images // config.batch_size)
    train_clip.train(
        state,
        images,
        people,
        config,
        tokenize=open_clip.get_tokenizer(CLIP_NAME),
        normalize=lambda pixels: (pixels - mean) / std,
        templates=TEMPLATES,
        on_step=keeper,
    )
    return tune_world_texts(out, model, images, people, lambda pixels: (pixels - mean) / std)


def tune_world_texts(
    out: Path,
    model: Any,
    images: Tensor,
    people: list[Attributes],
    normalize: Callable[[Tensor], Tensor],
) -> torch.nn.Module:
    """Fit the text tower to the finished image tower, in place."""
    import open_clip

    config = train_texts.TextTuningConfig()
    state = train_texts.start(model.eval(), config)
    with torch.inference_mode():
        parts = [model.encode_image(normalize(part / 255.0)) for part in images.split(CODE_BATCH)]
    embeddings = torch.cat(parts).clone()
    train_texts.train(
        state,
        embeddings,
        people,
        config,
        tokenize=open_clip.get_tokenizer(CLIP_NAME),
        templates=TEMPLATES,
        on_step=Keeper(out / "texts.pt", state, config.num_steps),
    )
    return model.eval()


def train_world_autoencoder(
    out: Path, images: Tensor, people: list[Attributes]
) -> train_autoencoder.Autoencoder:
    """The averaged generator and encoder."""
    config = train_autoencoder.AutoencoderConfig()
    state = train_autoencoder.start(config)
    keeper = Keeper(out / "autoencoder.pt", state, config.num_images // config.batch_size)
    train_autoencoder.train(state, images, labels_of(people), config, keeper)
    return state.average.eval()


def train_world_mapping(
    model: train_autoencoder.Autoencoder, images: Tensor, latent_avg: Tensor
) -> None:
    """Fit the generator's mapping network to the encoder's codes, in place."""
    config = train_mapping.MappingConfig()

    def show(step: int, losses: dict[str, float]) -> None:
        if step % SAVE_EVERY == 0:
            log.info("mapping: step %d of %d, %s", step, config.num_steps, losses)

    codes = _codes(model, images) + latent_avg
    model.generator.style = train_mapping.train(model.generator.style, codes, config, show)


class Keeper:
    """Called after every step: logs, saves the state now and then; loads it when made."""

    def __init__(self, path: Path, state: Resumable, num_steps: int) -> None:
        self._path, self._num_steps = path, num_steps
        self._losses: list[float] = []
        if path.exists():
            state.load_state_dict(torch.load(path, weights_only=True))
            log.info("%s: going on from step %d of %d", path.name, state.step, num_steps)

    def __call__(self, state: Resumable, loss: float) -> None:
        """After step `state.step`."""
        self._losses.append(loss)
        if state.step % SAVE_EVERY and state.step < self._num_steps:
            return
        mean = sum(self._losses) / len(self._losses)
        log.info("%s: step %d of %d, loss %.4f", self._path.name, state.step, self._num_steps, mean)
        self._losses.clear()
        buffer = io.BytesIO()
        torch.save(state.state_dict(), buffer)
        write_atomic(self._path, buffer.getvalue())


@torch.no_grad()
def _codes(model: train_autoencoder.Autoencoder, images: Tensor) -> Tensor:
    batches = images.split(CODE_BATCH)
    return torch.cat(
        [model.encoder(to_float(batch.permute(0, 2, 3, 1)))[:, 0] for batch in batches]
    )


if __name__ == "__main__":
    main()
