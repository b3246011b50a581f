"""Formats and precisions of stores through the command line: precompute, convert, and use."""

import json

import numpy as np
import pytest

from stores.reader import StoreReader
from stores.store import Store
from stores.verify import verify_store


@pytest.fixture(scope="module")
def half_tar(tmp_path_factory, call, faces, small_shards):
    """The store of `encoded`, as tar shards of float16."""
    store = tmp_path_factory.mktemp("half") / "faces.store"
    options = ("--format", "webdataset", "--dtype", "float16", "--split-eval", 0.25)
    call("precompute", faces, store, *small_shards, *options)
    return store


def _error_of_differences(rows: np.ndarray, found: np.ndarray) -> float:
    rows, found = (a.reshape(len(a), -1).astype("float64") for a in (rows, found))
    differences = rows[1:] - rows[:-1]
    errors = found[1:] - found[:-1] - differences
    return float(np.sqrt(np.mean(errors**2) / np.mean(differences**2)))


def test_float16_tars_hold_the_codes_of_images_within_three_hundredths_of_a_percent(
    half_tar, encoded
):
    full, half = StoreReader(encoded), StoreReader(half_tar)
    assert half.keys == full.keys
    assert verify_store(half_tar, full=True) == []
    np.testing.assert_array_equal(half.column("clip"), full.column("clip"))
    for name in ("w_plus", "s"):
        assert half.schema[name].dtype == "float16"
        assert 0 < _error_of_differences(full.column(name), half.column(name)) < 4e-4
    size_of = {
        path: sum(entry.size_bytes for entry in Store.open(path).manifest.shards.values())
        for path in (encoded, half_tar)
    }
    assert size_of[half_tar] < size_of[encoded]


def test_a_store_goes_on_in_its_own_format_and_precision_alone(call, half_tar, faces, small_shards):
    same = ("--format", "webdataset", "--dtype", "float16", "--split-eval", 0.25)
    done = call("precompute", faces, half_tar, *small_shards, *same, "--json")
    assert json.loads(done.out)["shards_made"] == 0
    other = call("precompute", faces, half_tar, *small_shards, "--split-eval", 0.25, code=2)
    assert "float16 (scaled), this run would write" in other.err
    hdf5 = ("--dtype", "float16", "--split-eval", 0.25)
    other = call("precompute", faces, half_tar, *small_shards, *hdf5, code=2)
    assert "has webdataset shards, this run would write hdf5" in other.err


def test_a_converted_store_is_continued_and_used_as_the_first(
    call, encoded, faces, small_shards, tmp_path
):
    out = tmp_path / "faces-tar.store"
    plan = call("store", "convert", encoded, out, "--format", "webdataset", "--dry-run", "--json")
    assert json.loads(plan.out)["rows"] == len(StoreReader(encoded))
    assert not out.exists()
    done = call("store", "convert", encoded, out, "--format", "webdataset", "--json")
    result = json.loads(done.out)
    assert result["lossless"]
    assert not {"models.json", "precompute.json"} & set(result["blobs dropped"])
    assert "models.json" in result["blobs kept"]
    old, new = StoreReader(encoded), StoreReader(out)
    for name in ("clip", "w_plus", "s"):
        np.testing.assert_array_equal(new.column(name), old.column(name))
    options = ("--format", "webdataset", "--split-eval", 0.25, "--json")
    again = json.loads(call("precompute", faces, out, *small_shards, *options).out)
    assert again["shards_made"] == 0
    call("index", out)
    call("train", out, tmp_path / "run", "--steps", 5)
    edit = ("edit", tmp_path / "run", "--key", new.keys[0], "--text", "face with a hat")
    call(*edit, "--out", tmp_path / "a.png")


def test_convert_says_what_it_loses_and_wants_to_be_told_what_to_do(call, encoded, tmp_path):
    nothing = call("store", "convert", encoded, tmp_path / "a", code=2)
    assert "give --format, --dtype or both" in nothing.err
    done = call("store", "convert", encoded, tmp_path / "half", "--dtype", "float16", "--json")
    assert json.loads(done.out)["lossless"] is False
    info = json.loads(call("store", "info", tmp_path / "half", "--json").out)
    assert info["columns"]["s"].endswith("float16 (scaled)")
    assert info["format"] == "hdf5"
    same = call("store", "convert", encoded, encoded, "--format", "webdataset", code=2)
    assert "is the store itself" in same.err


def test_embeddings_go_to_a_clip_retrieval_folder_and_back(call, encoded, tmp_path):
    call("store", "export", encoded, tmp_path / "emb", "--layout", "clip-retrieval", "--as-stored")
    layout = ("--layout", "clip-retrieval", "--split-eval", 0.25, "--models", "avatar", "--json")
    done = call("store", "import", tmp_path / "a.store", tmp_path / "emb", *layout)
    old, new = StoreReader(encoded), StoreReader(tmp_path / "a.store")
    assert json.loads(done.out)["rows"] == len(old)
    order = [old.index_of(key) for key in new.keys]
    np.testing.assert_array_equal(new.column("clip"), old.column("clip")[order])
    assert "not normalised" in new.fingerprints["clip"]
    call("index", tmp_path / "a.store")
    near = call("neighbours", tmp_path / "a.store", "--key", new.keys[0], "-k", 3, "--json")
    assert new.keys[0] in near.out


def test_float16_codes_are_exported_in_the_official_layout_as_float32(call, half_tar, tmp_path):
    call("store", "export", half_tar, tmp_path / "out")
    reader = StoreReader(half_tar)
    rows = np.argsort(reader.keys)
    for name, prefix in (("s", "sspace"), ("w_plus", "wspace"), ("clip", "cspace")):
        found = np.load(tmp_path / "out" / f"{prefix}_ffhq_feat.npy")
        expected = reader.column(name)[rows]
        np.testing.assert_array_equal(found.reshape(expected.shape), expected)
