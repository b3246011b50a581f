"""Text directions against numbers of the official code (with stand-ins for CLIP's embeddings)."""

import pytest
import torch

from pipeline.editing.directions import average_embedding, class_embedding, text_direction
from pipeline.errors import PromptError


@pytest.fixture(scope="module")
def golden(recipe):
    return recipe.golden("inference", whole=True)


def test_class_embeddings_give_the_published_numbers(golden, stand_in_clip, compare):
    found = torch.stack([class_embedding(stand_in_clip, n) for n in ("face with smile", "face")])
    compare("inference text_features", found, golden["text_features"])


def test_direction_gives_the_published_numbers(golden, stand_in_clip, compare):
    direction = text_direction(stand_in_clip, "face with smile", "face")
    compare("inference dt", direction.raw, golden["dt"])
    compare("inference dt_unit", direction.unit, golden["dt_unit"])
    assert direction.norm == pytest.approx(0.638, abs=5e-4)
    assert (direction.target, direction.neutral) == ("face with smile", "face")


def test_sentences_weigh_the_same_whatever_their_length():
    embeddings = torch.randn(79, 16, generator=torch.Generator().manual_seed(4))
    lengths = torch.linspace(0.1, 9, 79)[:, None]
    average = average_embedding(embeddings)
    assert torch.allclose(average_embedding(embeddings * lengths), average, atol=1e-6)
    assert average.norm().item() == pytest.approx(1, abs=1e-6)


def test_same_text_twice_is_refused_with_both_texts(stand_in_clip):
    with pytest.raises(PromptError, match=r"'face' and neutral 'face' .*at least 0\.001"):
        text_direction(stand_in_clip, "face", "face")


def test_empty_text_is_refused(stand_in_clip):
    with pytest.raises(PromptError, match="' ' is empty"):
        text_direction(stand_in_clip, " ", "face")


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
