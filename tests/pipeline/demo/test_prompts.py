import pytest

from pipeline.demo.prompts import PROMPTS, claims_of

BEARDS = ("short beard", "beard", "long beard")


@pytest.mark.parametrize(
    ("prompt", "claims"),
    [
        ("face with sunglasses", {"glasses": ("sunglasses",)}),
        ("Face with Dark Glasses!", {"glasses": ("sunglasses",)}),
        ("face with no glasses", {"glasses": ("none",)}),
        ("face with a beard", {"facial_hair": BEARDS}),
        ("face with a long beard", {"facial_hair": ("long beard",)}),
        ("face with beard", {"facial_hair": BEARDS}),
        ("bald face", {"hair_style": ("bald",)}),
        (
            "happy face with eyeglasses and a hoodie",
            {"mouth": ("smile",), "glasses": ("eyeglasses",), "clothes": ("hoodie",)},
        ),
        ("red clothes", {"clothes_color": ("red",)}),
        ("face", {}),
        ("a cathedral at night", {}),
    ],
)
def test_a_prompt_claims_what_its_longest_phrases_say(prompt, claims):
    assert claims_of(prompt) == claims


def test_hair_of_a_colour_is_hair_that_can_be_seen():
    claims = claims_of("face with blond hair")
    assert claims["hair_color"] == ("blond",)
    assert set(claims["hair_style"]) == {"short", "long", "bob", "curly", "bun"}


def test_phrases_about_one_attribute_narrow_each_other_down():
    assert claims_of("bearded face with a long beard")["facial_hair"] == ("long beard",)


def test_part_of_a_word_is_no_phrase():
    assert claims_of("bearded-dragon capsule") == {}
    assert claims_of("face with shades") == {"glasses": ("sunglasses",)}


def test_every_standard_prompt_is_understood():
    assert len(set(PROMPTS)) == len(PROMPTS) >= 30
    assert all(claims_of(prompt) for prompt in PROMPTS)
    covered = {name for prompt in PROMPTS for name in claims_of(prompt)}
    assert covered >= {"glasses", "hat", "facial_hair", "hair_color", "hair_style", "mouth"}
    assert covered >= {"eyes", "skin_tone", "clothes", "clothes_color"}
