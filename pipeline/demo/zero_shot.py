"""How well a CLIP reads avatars that it was not trained on, by attribute and by caption."""

from collections.abc import Sequence
from functools import cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.demo.avatars import Attributes
from pipeline.demo.captions import Phrase, phrases
from pipeline.demo.reader import VALUES
from pipeline.editing.directions import TextEncoder, average_embedding, class_embedding


@cache
def value_phrases(attribute: str) -> dict[str, Phrase]:
    """The first phrase of the caption bank for each value of an attribute that has one of its own.

    A phrase may say besides where the value can be seen: hair has a colour where there is hair.
    """
    found: dict[str, Phrase] = {}
    for phrase in phrases():
        name, values = phrase.claims[0]
        is_plain = len(phrase.claims) == 1 or (
            name == "hair_color" and len(phrase.claims[1][1]) > 1
        )
        if name == attribute and len(values) == 1 and is_plain and not phrase.leading:
            found.setdefault(values[0], phrase)
    return found


ValueTexts = dict[str, dict[str, Tensor]]
"""Attribute -> value -> unit embedding [C] of its text."""


@torch.no_grad()
def embed_values(clip: TextEncoder) -> ValueTexts:
    """Embed "face with PHRASE" in the 79 templates, for every value that has a phrase."""
    return {
        attribute: {
            value: class_embedding(clip, f"face with {phrase.texts[0]}")
            for value, phrase in value_phrases(attribute).items()
        }
        for attribute in VALUES
    }


def zero_shot_accuracy(
    embeddings: Tensor, texts: ValueTexts, people: Sequence[Attributes]
) -> dict[str, float]:
    """Share of pictures whose nearest text is the true one, for each attribute.

    Pictures whose value cannot be seen, or has no phrase of its own (ordinary eyebrows), do not
    count.

    Args:
        embeddings: [N, C] float32 embeddings of pictures, of any length.
        texts: what `embed_values` gives.
        people: what the N pictures show.
    """
    shares = {}
    for attribute, values in texts.items():
        guesses = (embeddings @ torch.stack([*values.values()]).T).argmax(dim=1).tolist()
        truth = [_true_values(person).get(attribute) for person in people]
        pairs = zip(guesses, truth, strict=True)
        hits = [list(values)[guess] == value for guess, value in pairs if value is not None]
        shares[attribute] = float(np.mean(hits))
    return shares


def embed_people(texts: ValueTexts, people: Sequence[Attributes]) -> Tensor:
    """Embeddings [N, C] of captions that say everything that can be seen of each avatar.

    Such a sentence is longer than the avatar CLIP's context of 32 tokens, so what stands for it is
    the average of the texts of its values, as for the sentences on one class.
    """
    said = [[texts[name][value] for name, value in _true_values(p).items()] for p in people]
    return torch.stack([average_embedding(torch.stack(parts)) for parts in said])


def _true_values(person: Attributes) -> dict[str, str]:
    """The values of an avatar that can be seen and have phrases."""
    values = {name: getattr(person, name) for name in VALUES}
    return {
        name: value
        for name, value in values.items()
        if value in value_phrases(name) and value_phrases(name)[value].true_of(person)
    }


def recall_among(images: Tensor, texts: Tensor, size: int = 100) -> float:
    """Share of pictures whose nearest text among `size` is their own (R@1).

    Args:
        images: [N, C] float32 embeddings; N at least `size`.
        texts: [N, C] float32 embeddings of their captions.
        size: pictures, and captions, of a group; rows that fill no group do not count.
    """
    pairs = zip(
        F.normalize(images, dim=1).split(size), F.normalize(texts, dim=1).split(size), strict=True
    )
    hits = [
        ((group @ said.T).argmax(dim=1) == torch.arange(size)).float().mean()
        for group, said in pairs
        if len(group) == size
    ]
    return float(torch.stack(hits).mean())
