from itertools import chain

import numpy as np
import pytest
import webdataset

from stores.errors import SchemaMismatchError, StoreError
from stores.iterate import IterateConfig, iterate_samples
from stores.reader import StoreReader

pytestmark = pytest.mark.parametrize("shard_format", ["hdf5", "webdataset"], indirect=True)


@pytest.fixture(scope="module")
def path(run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("iterate")
    run.main(str(run.make_source(folder / "in", 90)), str(folder / "t.store"), 7)
    return folder / "t.store"


def _keys(path, **options) -> list[str]:
    return [sample["__key__"] for sample in iterate_samples(path, IterateConfig(**options))]


def test_samples_are_the_rows_in_their_order(run, path):
    reader = StoreReader(path)
    samples = list(iterate_samples(path, IterateConfig()))
    assert [sample["__key__"] for sample in samples] == reader.keys
    for name in ("clip", "s"):
        stacked = np.stack([sample[f"{name}.npy"] for sample in samples])
        np.testing.assert_array_equal(stacked, reader.column(name))
    assert samples[0]["__url__"] == str(path / run.shard_file(0))
    samples[0]["s.npy"][:] = 0  # a copy
    assert reader.rows([0], ["s"])["s"].any()


def test_samples_are_those_that_webdataset_gives(run, path):
    if run.SHARD_FORMAT == "hdf5":
        pytest.skip("webdataset reads tar files")
    urls = [str(file) for file in sorted((path / "shards").iterdir())]
    theirs = list(webdataset.WebDataset(urls, shardshuffle=False).decode())
    ours = list(iterate_samples(path, IterateConfig()))
    assert len(ours) == len(theirs)
    for our, their in zip(ours, theirs, strict=True):
        assert our["__key__"] == their["json"]["key"]
        assert our["__url__"] == their["__url__"]
        np.testing.assert_array_equal(our["s.npy"], their["s.npy"])


def test_readers_share_the_samples_and_none_is_seen_twice(path):
    for options in ({}, {"seed": 3}):
        parts = [_keys(path, reader=i, num_readers=4, **options) for i in range(4)]
        assert min(map(len, parts)) > 0
        assert sorted(chain(*parts)) == sorted(_keys(path))


def test_more_readers_than_shards_leave_some_without_samples(path):
    parts = [_keys(path, reader=i, num_readers=50) for i in range(50)]
    assert sorted(chain(*parts)) == sorted(_keys(path))
    assert parts[-1] == []


def test_a_seed_gives_one_order_and_every_epoch_another(path):
    first = _keys(path, seed=7, buffer_rows=16)
    assert first == _keys(path, seed=7, buffer_rows=16)
    others = [_keys(path), _keys(path, seed=8), _keys(path, seed=7, epoch=1)]
    for other in others:
        assert other != first
        assert sorted(other) == sorted(first)


def test_a_seed_mixes_the_samples_of_several_shards(path):
    shard_of = {}
    for sample in iterate_samples(path, IterateConfig()):
        shard_of[sample["__key__"]] = sample["__url__"]
    head = {shard_of[key] for key in _keys(path, seed=1, buffer_rows=40)[:20]}
    assert len(head) > 3


def test_only_the_columns_that_are_asked_for_are_read(path):
    sample = next(iter(iterate_samples(path, IterateConfig(columns=("clip",)))))
    assert sorted(sample) == ["__key__", "__url__", "clip.npy"]
    with pytest.raises(SchemaMismatchError, match="this store has clip, s"):
        list(iterate_samples(path, IterateConfig(columns=("w_plus",))))


@pytest.mark.parametrize(
    "wrong", [{"reader": 2, "num_readers": 2}, {"reader": -1}, {"buffer_rows": 0}]
)
def test_parts_that_are_none_are_refused(wrong):
    with pytest.raises(StoreError, match=r"got"):
        IterateConfig(**wrong)
