"""Captions of avatars: phrases, each with the attribute values of which it is true.

Because every phrase knows what it claims, a batch of captions also says which *other* pictures of
the batch each caption fits (`truth`), so contrastive training is not misled by accidental matches.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from pipeline.demo.avatars import CLOTHES_COLORS, HAIR_COLORS, Attributes
from pipeline.rng import generator_for

SUBJECTS = ("face", "face", "face", "person", "head", "avatar", "portrait", "cartoon face")
MAX_PHRASES = 4
TEMPLATE_SHARE = 0.5
BARE_SHARE = 0.6
BEARDS = ("short beard", "beard", "long beard")
VISIBLE_HAIR = ("short", "long", "bob", "curly", "bun")


@dataclass(frozen=True, slots=True)
class Phrase:
    """One thing that a caption can say."""

    texts: tuple[str, ...]
    """Synonyms."""
    claims: tuple[tuple[str, tuple[str, ...]], ...]
    """(attribute, values): the phrase is true where every attribute has one of its values."""
    leading: bool = False
    """An adjective before the subject ("bald face") rather than "... with ..."."""

    def true_of(self, attributes: Attributes) -> bool:
        """Whether the phrase describes an avatar."""
        return all(getattr(attributes, name) in values for name, values in self.claims)


def _is(texts: str, *, leading: bool = False, **claims: str | tuple[str, ...]) -> Phrase:
    return Phrase(
        tuple(text.strip() for text in texts.split("|")),
        tuple((k, (v,) if isinstance(v, str) else v) for k, v in claims.items()),
        leading,
    )


@cache
def phrases() -> tuple[Phrase, ...]:
    """Everything that captions can say."""
    fixed = (
        _is("eyeglasses|glasses|spectacles|reading glasses|clear glasses", glasses="eyeglasses"),
        _is("sunglasses|dark glasses|black sunglasses|shades", glasses="sunglasses"),
        _is("no glasses|bare eyes", glasses="none"),
        _is("a hat|a hat on the head|a cap", hat=("hat", "winter hat")),
        _is("a brimmed hat|a wide hat|a sun hat|a big hat", hat="hat"),
        _is("a winter hat|a beanie|a woolly hat|a knitted cap", hat="winter hat"),
        _is("no hat", hat="none"),
        _is("a beard|beard", facial_hair=BEARDS),
        _is("bearded", leading=True, facial_hair=BEARDS),
        _is("a short beard|stubble|a light beard|a goatee", facial_hair="short beard"),
        _is("a full beard|a medium beard", facial_hair="beard"),
        _is("a long beard|a big beard|a bushy beard", facial_hair="long beard"),
        _is("a moustache|a mustache|moustache", facial_hair="moustache"),
        _is("facial hair", facial_hair=(*BEARDS, "moustache")),
        _is("no beard|no facial hair|a clean-shaven chin", facial_hair="none"),
        _is("clean-shaven|beardless|shaved", leading=True, facial_hair="none"),
        _is("short hair|a short haircut", hair_style="short"),
        _is("long hair|long straight hair", hair_style="long"),
        _is("long-haired", leading=True, hair_style="long"),
        _is("a bob haircut|a bob cut|bob hair|a bowl cut", hair_style="bob"),
        _is("curly hair|an afro|frizzy hair|big curly hair", hair_style="curly"),
        _is("curly-haired", leading=True, hair_style="curly"),
        _is("a hair bun|a bun|hair in a bun", hair_style="bun"),
        _is("a bald head|no hair", hair_style="bald"),
        _is("bald|hairless", leading=True, hair_style="bald"),
        _is("pale skin|very light skin|white skin", skin_tone="pale"),
        _is("pale", leading=True, skin_tone="pale"),
        _is("light skin|fair skin", skin_tone="light"),
        _is("tanned skin|tan skin", skin_tone="tanned"),
        _is("tanned", leading=True, skin_tone="tanned"),
        _is("brown skin", skin_tone="brown"),
        _is("dark skin|black skin|very dark skin", skin_tone="dark"),
        _is("closed eyes|shut eyes|eyes closed", eyes="closed"),
        _is("sleeping|sleepy", leading=True, eyes="closed"),
        _is("big eyes|wide open eyes|staring eyes|large eyes", eyes="big"),
        _is("small eyes|normal eyes", eyes="normal"),
        _is("surprised|astonished|shocked", leading=True, eyes="big", mouth="open"),
        _is("raised eyebrows", eyebrows="raised"),
        _is("angry eyebrows|lowered eyebrows", eyebrows="angry"),
        _is("angry", leading=True, eyebrows="angry", mouth=("serious", "sad", "open")),
        _is("worried eyebrows|sad eyebrows", eyebrows="sad"),
        _is("worried", leading=True, eyebrows="sad"),
        _is("a smile|a big smile|a happy smile|a happy expression", mouth="smile"),
        _is("smiling|happy|laughing|cheerful", leading=True, mouth="smile"),
        _is("a serious mouth|a neutral expression|a straight mouth", mouth="serious"),
        _is("serious|neutral", leading=True, mouth="serious"),
        _is("a sad mouth|a frown|a sad expression", mouth="sad"),
        _is("sad|unhappy|frowning", leading=True, mouth="sad"),
        _is("an open mouth|a wide open mouth", mouth="open"),
        _is("screaming|shouting", leading=True, mouth="open"),
        _is("a t-shirt|a shirt", clothes="shirt"),
        _is("a hoodie|a hooded sweater", clothes="hoodie"),
        _is("a suit|a blazer|a jacket|a dark suit", clothes="suit"),
    )
    colored: list[Phrase] = []
    synonyms = {"blond": ("blond", "blonde", "golden"), "red": ("red", "ginger")}
    synonyms |= {"gray": ("gray", "grey", "silver")}
    for color in HAIR_COLORS:
        names = synonyms.get(color, (color,))
        hair = "|".join(f"{name} hair" for name in names)
        colored.append(_is(hair, hair_color=color, hair_style=VISIBLE_HAIR))
        leading = "|".join(f"{name}-haired" for name in names)
        colored.append(_is(leading, leading=True, hair_color=color, hair_style=VISIBLE_HAIR))
        for style in ("long", "short", "curly"):
            texts = "|".join(f"{style} {name} hair" for name in names)
            colored.append(_is(texts, hair_color=color, hair_style=style))
        colored.append(_is(f"a {color} beard", hair_color=color, facial_hair=BEARDS))
    for color in CLOTHES_COLORS:
        colored.append(_is(f"{color} clothes|{color} clothing", clothes_color=color))
        colored.append(_is(f"a {color} shirt", clothes_color=color, clothes="shirt"))
        colored.append(_is(f"a {color} hoodie", clothes_color=color, clothes="hoodie"))
    return fixed + tuple(colored)


def truth_table(people: Sequence[Attributes]) -> np.ndarray:
    """[phrases, avatars] bool: which phrase is true of which avatar."""
    return np.array([[phrase.true_of(person) for person in people] for phrase in phrases()])


@dataclass(frozen=True, slots=True)
class Caption:
    """A caption and the numbers (in `phrases()`) of what it claims."""

    text: str
    phrase_ids: tuple[int, ...]


def write_caption(
    true_phrases: np.ndarray, rng: np.random.Generator, templates: Sequence[str] = ()
) -> Caption:
    """A caption that says up to `MAX_PHRASES` of the things that are true of one avatar.

    Args:
        true_phrases: numbers of the phrases that are true of the avatar.
        rng: source of the choices.
        templates: sentence patterns with one ``{}``, used for half of the captions.
    """
    count = int(rng.choice(MAX_PHRASES + 1, p=(0.06, 0.42, 0.26, 0.16, 0.10)))
    chosen = rng.choice(true_phrases, size=min(count, len(true_phrases)), replace=False)
    leading, trailing = [], []
    bank = phrases()
    kept: list[int] = []
    for number in chosen:
        phrase = bank[number]
        if phrase.leading and leading:
            continue  # "happy bald face" reads well, three adjectives do not
        text = phrase.texts[rng.integers(len(phrase.texts))]
        (leading if phrase.leading else trailing).append(text)
        kept.append(int(number))
    core = " ".join([*leading, SUBJECTS[rng.integers(len(SUBJECTS))]])
    if trailing:
        core += " with " + " and ".join(
            [", ".join(trailing[:-1]), trailing[-1]] if len(trailing) > 1 else trailing
        )
    if len(templates) and rng.random() < TEMPLATE_SHARE:
        text = templates[int(rng.integers(len(templates)))].replace("{}", core)
    else:
        text = core if rng.random() < BARE_SHARE else f"{_article(core)} {core}"
    return Caption(text, tuple(kept))


def _article(noun: str) -> str:
    return "an" if noun[0] in "aeiou" else "a"


def write_phrase_captions(
    count: int, rng: np.random.Generator, templates: Sequence[str] = ()
) -> list[Caption]:
    """Captions of `count` different phrases of the bank, each saying its phrase alone."""
    captions = []
    bank = phrases()
    for number in rng.choice(len(bank), size=count, replace=False):
        phrase = bank[number]
        text = phrase.texts[rng.integers(len(phrase.texts))]
        subject = SUBJECTS[rng.integers(len(SUBJECTS))]
        core = f"{text} {subject}" if phrase.leading else f"{subject} with {text}"
        if len(templates) and rng.random() < TEMPLATE_SHARE:
            core = templates[int(rng.integers(len(templates)))].replace("{}", core)
        captions.append(Caption(core, (int(number),)))
    return captions


def fits(captions: Sequence[Caption], table: np.ndarray) -> np.ndarray:
    """[captions, avatars] bool: which caption is true of which avatar (columns of `table`)."""
    return np.array([table[list(caption.phrase_ids)].all(axis=0) for caption in captions])


def write_truthful_caption(person: Attributes, seed: int, index: int) -> str:
    """The caption of one avatar of a series, the same on every machine."""
    true_phrases = np.array([n for n, phrase in enumerate(phrases()) if phrase.true_of(person)])
    return write_caption(true_phrases, generator_for(seed, "caption", index)).text
