import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stores.keys import key_of_name, name_of_key


@pytest.mark.parametrize(
    "name", ["a.png", "b/ü 100%.jpg", "a%20b.png", "line\nbreak.png", "x" * 500]
)
def test_a_name_that_is_text_is_its_own_key(name):
    assert key_of_name(name) == name


def test_bytes_that_are_not_utf8_are_escaped_as_in_a_url():
    assert key_of_name(os.fsdecode(b"caf\xe9.png")) == "caf%E9.png"


def test_a_name_that_looks_escaped_does_not_take_the_key_of_one_that_is():
    assert key_of_name("caf%E9.png") != key_of_name(os.fsdecode(b"caf\xe9.png"))


@given(
    st.lists(st.sampled_from([b"%", b"25", b"E9", b"e9", b"8", b"\xe9", b"a", b"\xc3\xa9", b"/"]))
)
def test_every_name_comes_back_from_its_key_and_the_key_is_text(parts):
    name = os.fsdecode(b"".join(parts))
    key = key_of_name(name)
    assert key.encode().decode() == key
    assert name_of_key(key) == name
