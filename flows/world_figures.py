"""Measure the avatar world's models on avatars that none of them has seen.

`python -m flows.world_figures` prints one JSON object; docs/evaluation.md says what is in it.
"""

import json

import click
import numpy as np
import torch

from flows.models import ModelOptions, load_models
from pipeline.demo.avatars import Attributes, draw_avatar
from pipeline.demo.reader import AttributeReader, labels_of, load_reader
from pipeline.demo.zero_shot import embed_people, embed_values, recall_among, zero_shot_accuracy
from pipeline.evaluation.frechet import frechet_distance
from pipeline.evaluation.reconstruction import score_reconstructions
from pipeline.images import to_float, to_uint8
from pipeline.models.clip import ClipModel
from pipeline.models.registry import BUNDLED_FOLDER

HELD_OUT_SEED = 31
"""Series of the avatars that are measured on; the models were trained on others."""
BATCH = 100


@click.command()
@click.option("--images", "count", type=click.IntRange(min=200), default=1000, show_default=True)
def main(count: int) -> None:
    """Reconstruction, attribute reader, CLIP zero-shot, R@1 and FID, as JSON."""
    click.echo(json.dumps(measure_world(count), indent=2))


@torch.no_grad()
def measure_world(count: int) -> dict[str, object]:
    """Every figure of the avatar world's models on `count` held-out avatars.

    Returns:
        ``PSNR, dB`` of reconstructions; ``reader on drawings`` and ``reader on reconstructions``,
        shares of right values by attribute; ``CLIP zero-shot`` by attribute; ``R@1 among 100``;
        ``FID`` of samples of z, of reconstructions, and of other held-out avatars (what a perfect
        model would have), by features of the avatar CLIP.
    """
    encoders = load_models(ModelOptions(models="avatar"), texts=True).encoders
    clip, e4e, generator = encoders.clip, encoders.e4e, encoders.generator
    assert clip is not None
    assert e4e is not None
    assert generator is not None
    avatars = [draw_avatar(HELD_OUT_SEED, index) for index in range(2 * count)]
    drawn = np.stack([avatar.pixels() for avatar in avatars])
    people = [avatar.attributes for avatar in avatars[:count]]
    codes = torch.cat([e4e(to_float(batch)) for batch in np.split(drawn[:count], _cuts(count))])
    rebuilt = _pictures([generator(part) for part in codes.split(BATCH)])
    noise = torch.randn(count, generator.style_dim, generator=torch.Generator().manual_seed(0))
    latents = [generator.map(part) for part in noise.split(BATCH)]
    sampled = _pictures([generator(generator.broadcast(latent)) for latent in latents])
    pictures = {
        "held-out avatars": drawn[:count],
        "other avatars": drawn[count:],
        "reconstructions": rebuilt,
        "samples of z": sampled,
    }
    features = {name: _features(clip, pixels) for name, pixels in pictures.items()}
    real = features.pop("held-out avatars")
    reader = load_reader(BUNDLED_FOLDER / "reader.safetensors")
    texts = embed_values(clip)
    return {
        "images": count,
        "PSNR, dB": round(score_reconstructions(drawn[:count], rebuilt), 2),
        "reader on drawings": _read_right(reader, drawn[:count], people),
        "reader on reconstructions": _read_right(reader, rebuilt, people),
        "CLIP zero-shot": _rounded(zero_shot_accuracy(real, texts, people)),
        "R@1 among 100": round(recall_among(real, embed_people(texts, people)), 4),
        "FID": {
            name: round(frechet_distance(real.numpy(), rows.numpy()), 4)
            for name, rows in features.items()
        },
    }


def _cuts(count: int) -> list[int]:
    return list(range(BATCH, count, BATCH))


def _pictures(batches: list[torch.Tensor]) -> np.ndarray:
    return np.concatenate([np.asarray(to_uint8(batch)) for batch in batches])


def _features(clip: ClipModel, pixels: np.ndarray) -> torch.Tensor:
    """Embeddings [N, C] at length 1."""
    parts = [
        clip.encode_images(batch, "official") for batch in np.split(pixels, _cuts(len(pixels)))
    ]
    return torch.nn.functional.normalize(torch.cat(parts), dim=1)


def _read_right(
    reader: AttributeReader, pixels: np.ndarray, people: list[Attributes]
) -> dict[str, float]:
    truth, found = labels_of(people), reader.read(pixels)
    return _rounded({n: float((found[n] == truth[n]).float().mean()) for n in truth})


def _rounded(shares: dict[str, float]) -> dict[str, float]:
    return {
        **{n: round(s, 4) for n, s in shares.items()},
        "mean": round(float(np.mean([*shares.values()])), 4),
    }


if __name__ == "__main__":
    main()
