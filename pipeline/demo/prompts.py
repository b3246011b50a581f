"""Prompts of the avatar world: the standard list, and what any prompt claims about an avatar."""

import re
from collections import defaultdict
from functools import cache

from pipeline.demo.captions import phrases
from pipeline.demo.reader import VALUES

PROMPTS = (
    "face with sunglasses",
    "face with eyeglasses",
    "face with no glasses",
    "face with a hat",
    "face with a winter hat",
    "face with a beard",
    "face with a long beard",
    "face with a short beard",
    "face with a moustache",
    "clean-shaven face",
    "face with blond hair",
    "face with red hair",
    "face with black hair",
    "face with brown hair",
    "face with gray hair",
    "face with pink hair",
    "face with long hair",
    "face with short hair",
    "face with curly hair",
    "face with a bob haircut",
    "bald face",
    "face with a smile",
    "sad face",
    "serious face",
    "face with an open mouth",
    "face with closed eyes",
    "face with big eyes",
    "pale face",
    "tanned face",
    "face with brown skin",
    "face with dark skin",
    "face with a suit",
    "face with a hoodie",
    "face with red clothes",
    "face with blue clothes",
    "face with black clothes",
    "face with white clothes",
    "face with yellow clothes",
)
"""What `deltaedit evaluate` measures on the avatar world: accessories, hats, facial hair, hair,
expression, eyes, skin and clothes."""

Claims = dict[str, tuple[str, ...]]
"""Attribute -> the values of which one is asked for."""


def claims_of(prompt: str) -> Claims:
    """What a prompt asks of an avatar, by the phrases of the caption bank that it contains.

    The longest phrases count: "face with a long beard" asks for a long beard, not for any beard.
    Phrases that ask for one attribute narrow each other down. Words that the bank does not know
    ask for nothing.

    Returns:
        Claims by attribute; empty for a prompt that the bank does not understand.
    """
    words = " ".join(re.findall(r"[a-z-]+", prompt.lower()))
    found: dict[str, set[str]] = defaultdict(set)
    for text, claims in _claims_by_text():
        pattern = rf"(?<![a-z-]){re.escape(text)}(?![a-z-])"
        words, count = re.subn(pattern, "|", words)
        if not count:
            continue
        for name, values in claims:
            found[name] = found[name] & set(values) if name in found else set(values)
    return {
        name: tuple(value for value in VALUES[name] if value in values)
        for name, values in found.items()
        if values
    }


@cache
def _claims_by_text() -> tuple[tuple[str, tuple[tuple[str, tuple[str, ...]], ...]], ...]:
    """Every text of the bank with its claims, the longest first, with and without its article."""
    texts: dict[str, tuple[tuple[str, tuple[str, ...]], ...]] = {}
    for phrase in phrases():
        for text in phrase.texts:
            texts.setdefault(text, phrase.claims)
            texts.setdefault(re.sub(r"^(an?) ", "", text), phrase.claims)
    return tuple(sorted(texts.items(), key=lambda item: (-len(item[0]), item[0])))
