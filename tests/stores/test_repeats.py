import random

from stores.repeats import KeyCensus


def test_repeated_keys_are_found_with_all_their_places_and_no_others():
    chance = random.Random(3)  # noqa: S311 - keys, not secrets
    places = {place: [f"k{chance.randrange(300)}" for _ in range(20)] for place in range(40)}
    census = KeyCensus[int](places.__getitem__)
    for place, keys in places.items():
        census.add(place, keys)
    expected = {}
    for place, keys in places.items():
        for key in keys:
            expected.setdefault(key, []).append(place)
    assert census.repeated() == {key: found for key, found in expected.items() if len(found) > 1}


def test_no_keys_have_no_repeats():
    assert KeyCensus[int](lambda _: []).repeated() == {}


class _Alike(str):
    """Text of which all has one hash."""

    __slots__ = ()

    def __hash__(self) -> int:
        return 7


def test_keys_that_share_a_hash_are_not_taken_for_one():
    keys = [_Alike("a"), _Alike("b"), _Alike("c")]
    census = KeyCensus[str](lambda _: keys)
    census.add("here", keys)
    assert census.repeated() == {}
