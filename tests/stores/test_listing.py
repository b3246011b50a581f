import pickle
import random
import tracemalloc

import numpy as np
import pytest

from stores.listing import Listing, SourceItem

NAMES = ["b.png", "a/z.png", "a.png", "線", "%25E9.png", "%E9.png", "a b", "\U0001d4b3", "\uffee"]


def _items(folder: str = "/in/") -> list[SourceItem]:
    paths = {"%E9.png": folder + "\udce9.png", "%25E9.png": folder + "%E9.png"}
    return [
        SourceItem(key, paths.get(key, folder + key), size, 10 + size)
        for size, key in enumerate(NAMES)
    ]


def test_a_listing_is_the_items_sorted_by_key():
    expected = sorted(_items(), key=lambda item: item.key)
    listing = Listing.of(_items())
    assert list(listing) == [listing[place] for place in range(len(listing))] == expected
    assert listing == expected
    assert listing[2:5] == expected[2:5]
    assert listing[np.array([4, 1])] == [expected[4], expected[1]]
    assert listing.sizes.tolist() == [item.size_bytes for item in expected]


def test_a_part_crosses_process_borders_alone():
    listing = Listing.of(SourceItem(f"{i:06}.png", f"/in/{i:06}.png", i, i) for i in range(5000))
    sent = pickle.dumps(listing[10:20])
    assert pickle.loads(sent) == listing[10:20]  # noqa: S301 - our own bytes
    assert len(sent) < 2000


@pytest.mark.parametrize("path", ["", "/elsewhere/under/another.name", "/in/x/../a.png"])
def test_a_path_that_does_not_end_in_its_key_is_kept_whole(path):
    assert Listing.of([SourceItem("a.jpg", path)])[0].path == path


def test_keys_are_found_at_their_places_and_others_nowhere():
    chance = random.Random(5)  # noqa: S311 - keys, not secrets
    keys = sorted({f"{chance.randrange(5000)}" for _ in range(800)})
    listing = Listing.of(SourceItem(key) for key in keys)
    assert listing.places(keys).tolist() == list(range(len(keys)))
    assert listing.places(["-1", "x", ""]).tolist() == [-1, -1, -1]
    assert listing.places([]).tolist() == []
    assert Listing.of([]).places(["a"]).tolist() == [-1]
    part = listing[100:200]
    assert part.places([keys[100], keys[99]]).tolist() == [0, -1]
    for key in [*keys[::50], "0", "zz", ""]:
        assert listing.bisect(key) == sum(other < key for other in keys)
        assert listing.bisect(key, right=True) == sum(other <= key for other in keys)


def test_an_input_takes_less_than_a_hundred_bytes_beside_its_key():
    count = 20_000
    tracemalloc.start()
    listing = Listing.of(SourceItem(f"{i:08}.png", f"/in/{i:08}.png", i, i) for i in range(count))
    kept, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(listing) == count
    assert kept / count < 100
    assert peak / count < 300
