"""Text directions against numbers of the official code (with stand-ins for CLIP's embeddings)."""

import zlib
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.editing.directions import average_embedding, class_embedding, text_direction
from pipeline.errors import PromptError

GOLDEN = Path(__file__).resolve().parents[3] / "../shared/golden/inference.npz"


def stand_in(name: str) -> torch.Tensor:
    """The golden recipe E(name): embeddings [79, 512] of unequal lengths for a class name."""
    base = np.random.RandomState(50).standard_normal(512)
    random = np.random.RandomState(zlib.crc32(name.encode()))
    own, noise = random.standard_normal(512), random.standard_normal((79, 512))
    length = random.uniform(0.5, 2, (79, 1))
    return torch.from_numpy(((base + 0.5 * own + 0.7 * noise) * length).astype(np.float32))


class StandInClip:
    """Embeds the 79 sentences of a name as the recipe says; the name is between known words."""

    def encode_texts(self, texts):
        assert texts[0].startswith("a bad photo of a ")
        return stand_in(texts[0].removeprefix("a bad photo of a ").removesuffix("."))


@pytest.fixture(scope="module")
def golden():
    if not GOLDEN.is_file():
        pytest.skip(f"{GOLDEN.name} is not beside this checkout")
    return np.load(GOLDEN)


def relative_error(found: torch.Tensor, expected: np.ndarray) -> float:
    return float(np.abs(found.numpy() - expected).max() / np.sqrt((expected**2).mean()))


def test_class_embeddings_give_the_published_numbers(golden):
    found = torch.stack([class_embedding(StandInClip(), n) for n in ("face with smile", "face")])
    assert relative_error(found, golden["text_features"]) < 1e-4


def test_direction_gives_the_published_numbers(golden):
    direction = text_direction(StandInClip(), "face with smile", "face")
    assert relative_error(direction.raw, golden["dt"]) < 1e-4
    assert relative_error(direction.unit, golden["dt_unit"]) < 1e-4
    assert direction.norm == pytest.approx(0.638, abs=5e-4)
    assert (direction.target, direction.neutral) == ("face with smile", "face")


def test_sentences_weigh_the_same_whatever_their_length():
    embeddings = torch.randn(79, 16, generator=torch.Generator().manual_seed(4))
    lengths = torch.linspace(0.1, 9, 79)[:, None]
    average = average_embedding(embeddings)
    assert torch.allclose(average_embedding(embeddings * lengths), average, atol=1e-6)
    assert average.norm().item() == pytest.approx(1, abs=1e-6)


def test_same_text_twice_is_refused_with_both_texts():
    with pytest.raises(PromptError, match=r"'face' and neutral 'face' .*at least 0\.001"):
        text_direction(StandInClip(), "face", "face")


def test_empty_text_is_refused():
    with pytest.raises(PromptError, match="' ' is empty"):
        text_direction(StandInClip(), " ", "face")


def test_braces_in_a_name_are_only_text():
    class Recorder:
        def __init__(self):
            self.texts = []

        def encode_texts(self, texts):
            self.texts += texts
            return torch.ones(len(texts), 4)

    recorder = Recorder()
    class_embedding(recorder, "face with {0}")
    assert "art of the face with {0}." in recorder.texts
