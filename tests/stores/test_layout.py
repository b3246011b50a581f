from pathlib import Path

import pytest

from stores.errors import StoreError
from stores.layout import Layout


def test_a_number_comes_back_from_every_file_name():
    layout = Layout(Path("x"), "ffhq-2")
    for number in (0, 12, 999_999, 12_345_678):
        for path in (layout.shard(number), layout.entry(number), layout.inputs(number)):
            assert layout.number(path.name) == number


@pytest.mark.parametrize(
    "name", ["scan.jsonl", "b-000001.h5", "a-1.h5", "a-0000001.h5", ".a-000001.h5.3-ab.tmp", "a"]
)
def test_names_of_others_have_no_number(name):
    assert Layout(Path("x"), "a").number(name) is None


@pytest.mark.parametrize("name", ["", "../a", "a/b", ".a", "-a", "a b", "x" * 101])
def test_names_that_are_not_safe_in_files_are_refused(name):
    with pytest.raises(StoreError, match="cannot name a store's files"):
        Layout(Path("x"), name)
