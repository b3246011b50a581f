"""The published layout of vectors, into a store and back."""

import json
import subprocess
import sys

import numpy as np
import pytest

from stores.errors import KeyCollisionError, SchemaMismatchError, SourceError, StoreError
from stores.exchange.official import export_features, import_features
from stores.exchange.official_files import find_features
from stores.reader import StoreReader
from stores.store import Store
from stores.verify import verify_store

SHAPES = {"cspace": (6,), "wspace": (4, 5), "sspace": (9,)}


def write_set(folder, name, num_rows, *, dtype="float32", only=SHAPES):
    """Files of one set; returns the arrays by file name."""
    folder.mkdir(exist_ok=True)
    random = np.random.default_rng(len(name) + num_rows)
    arrays = {}
    for space in only:
        prefix = "wplus" if (space, name) == ("wspace", "img") else space
        array = random.standard_normal((num_rows, *SHAPES[space])).astype(dtype)
        arrays[f"{prefix}_{name}_feat.npy"] = array
        np.save(folder / f"{prefix}_{name}_feat.npy", array)
    return arrays


def imported(folder, store, *, shard_rows=8):
    features = find_features(folder)
    made = Store.open_or_create(
        store, schema=features.schema, fingerprints=features.fingerprints(pre="box7")
    )
    return list(import_features(features, made, shard_rows=shard_rows))


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_sets_come_back_bit_for_bit(tmp_path, dtype):
    arrays = {}
    for name, num_rows in (("noise", 21), ("ffhq", 13), ("img", 3)):
        arrays |= write_set(tmp_path / "in", name, num_rows, dtype=dtype)
    imported(tmp_path / "in", tmp_path / "s")
    files = export_features(StoreReader(tmp_path / "s"), tmp_path / "out", name="ffhq")
    assert {path.name for path in files if path.suffix == ".npy"} == arrays.keys()
    for name, array in arrays.items():
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "in" / name).read_bytes()
        np.testing.assert_array_equal(np.load(tmp_path / "out" / name), array)
    assert not list((tmp_path / "out").glob(".*"))


def test_rows_keep_their_order_and_get_names(tmp_path):
    arrays = write_set(tmp_path / "in", "noise", 12)
    imported(tmp_path / "in", tmp_path / "s", shard_rows=5)
    reader = StoreReader(tmp_path / "s")
    assert reader.keys == [f"noise/{row:09d}" for row in range(12)]
    np.testing.assert_array_equal(reader.column("w_plus"), arrays["wspace_noise_feat.npy"])
    assert verify_store(tmp_path / "s", full=True) == []


def test_a_store_of_photographs_comes_back_with_its_own_keys(tmp_path):
    write_set(tmp_path / "in", "ffhq", 5)
    keys = ["a/1.png", 'b "quoted".png', "c\nd.png", "y.png", "é.png"]
    lines = "".join(json.dumps(key) + "\n" for key in keys)
    (tmp_path / "in" / "keys_ffhq.jsonl").write_text(lines)
    imported(tmp_path / "in", tmp_path / "s", shard_rows=2)
    export_features(StoreReader(tmp_path / "s"), tmp_path / "out", name="real")
    assert (tmp_path / "out" / "keys_real.jsonl").read_text() == lines
    imported(tmp_path / "out", tmp_path / "again")
    again = StoreReader(tmp_path / "again")
    assert again.keys == keys
    np.testing.assert_array_equal(again.column("s"), StoreReader(tmp_path / "s").column("s"))


def test_nan_rows_become_rejects(tmp_path):
    arrays = write_set(tmp_path / "in", "ffhq", 6)
    arrays["cspace_ffhq_feat.npy"][2, 1] = np.nan
    np.save(tmp_path / "in" / "cspace_ffhq_feat.npy", arrays["cspace_ffhq_feat.npy"])
    imported(tmp_path / "in", tmp_path / "s")
    reader = StoreReader(tmp_path / "s")
    (reject,) = reader.rejects()
    assert (reject.key, reject.reason) == ("ffhq/000000002", "not_finite")
    assert (len(reader), reader.manifest.counts.inputs) == (5, 6)


def test_an_interrupted_import_goes_on_where_it_was(tmp_path):
    write_set(tmp_path / "in", "noise", 20)
    features = find_features(tmp_path / "in")
    store = Store.create(tmp_path / "s", schema=features.schema, fingerprints={})
    entries = import_features(features, store, shard_rows=8)
    next(entries)
    entries.close()
    rest = list(import_features(features, Store.open(tmp_path / "s"), shard_rows=8))
    assert [entry.number for entry in rest] == [1, 2]
    assert len(StoreReader(tmp_path / "s")) == 20


def test_columns_may_be_missing_altogether(tmp_path):
    write_set(tmp_path / "in", "noise", 4, only=("cspace", "sspace"))
    imported(tmp_path / "in", tmp_path / "s")
    assert StoreReader(tmp_path / "s").schema.names == ("clip", "s")


def test_the_fingerprint_tells_other_files_and_settings_apart(tmp_path):
    write_set(tmp_path / "in", "noise", 4)
    features = find_features(tmp_path / "in")
    before = features.fingerprints(pre="box7")
    assert before["clip"].startswith("imported official pre=box7 cspace_noise_feat.npy sha256=")
    assert features.fingerprints(pre="official")["s"] != before["s"]
    write_set(tmp_path / "in", "noise", 4, dtype="float16")
    assert find_features(tmp_path / "in").fingerprints(pre="box7")["s"] != before["s"]


def save(folder, name, array):
    folder.mkdir(exist_ok=True)
    np.save(folder / name, array, allow_pickle=True)


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        ("sspace_ffhq_feat.npy", np.ones((6, 9), "f4"), r"cspace_ffhq_feat\.npy has 5.* has 6"),
        ("sspace_ffhq_feat.npy", np.ones((5, 3, 3), "f4"), r"expected 2 axes.*found \[5, 3, 3\]"),
        ("sspace_ffhq_feat.npy", np.ones((5, 9), "f8"), r"found float64; save it as float32"),
        ("sspace_ffhq_feat.npy", np.array([{}] * 5), r"damaged, truncated or no \.npy"),
        ("sspace_ffhq_feat.npy", np.ones((0, 9), "f4"), r"\[0, 9\]: no row"),
        ("wplus_ffhq_feat.npy", np.ones((5, 4, 5), "f4"), r"are one column; remove one"),
    ],
)
def test_files_that_do_not_belong_together_are_refused(tmp_path, name, array, message):
    write_set(tmp_path / "in", "ffhq", 5)
    save(tmp_path / "in", name, array)
    with pytest.raises(SourceError, match=message):
        find_features(tmp_path / "in")


def test_sets_of_other_widths_are_refused(tmp_path):
    write_set(tmp_path / "in", "ffhq", 5)
    write_set(tmp_path / "in", "noise", 5, only=("cspace",))
    with pytest.raises(SchemaMismatchError, match="put the sets into folders"):
        find_features(tmp_path / "in")


def test_a_truncated_file_is_refused(tmp_path):
    write_set(tmp_path / "in", "ffhq", 5)
    path = tmp_path / "in" / "sspace_ffhq_feat.npy"
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(SourceError, match="fetch it again"):
        find_features(tmp_path / "in")


def test_a_folder_of_other_things_is_refused(tmp_path):
    with pytest.raises(SourceError, match=r"none of the files .*_feat\.npy"):
        find_features(tmp_path)
    with pytest.raises(SourceError, match="is not a folder"):
        find_features(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ('"a"\n"b"\n', SourceError, "has 2 lines for the 3 rows"),
        ('"a"\n"b"\n7\n', SourceError, "line 3: 7 is no text"),
        ('"a"\nb\n"c"\n', SourceError, "line 2"),
        ('"a"\n"b"\n"a"\n', KeyCollisionError, "two rows have the key 'a'"),
    ],
)
def test_a_list_of_keys_that_does_not_fit_is_refused(tmp_path, text, error, message):
    write_set(tmp_path / "in", "ffhq", 3)
    (tmp_path / "in" / "keys_ffhq.jsonl").write_text(text)
    with pytest.raises(error, match=message):
        find_features(tmp_path / "in").items()


def test_an_export_never_overwrites(tmp_path):
    write_set(tmp_path / "in", "ffhq", 3)
    imported(tmp_path / "in", tmp_path / "s")
    before = (tmp_path / "in" / "sspace_ffhq_feat.npy").read_bytes()
    with pytest.raises(StoreError, match="is there already"):
        export_features(StoreReader(tmp_path / "s"), tmp_path / "in", name="ffhq")
    assert (tmp_path / "in" / "sspace_ffhq_feat.npy").read_bytes() == before
    assert not (tmp_path / "in" / "keys_ffhq.jsonl").exists()


def test_a_set_name_that_cannot_be_a_part_of_a_file_name_is_refused(tmp_path):
    write_set(tmp_path / "in", "ffhq", 3)
    imported(tmp_path / "in", tmp_path / "s")
    with pytest.raises(StoreError, match="cannot name a set"):
        export_features(StoreReader(tmp_path / "s"), tmp_path / "out", name="../ffhq")


MEASURED = """
import resource, sys
from pathlib import Path
from stores.exchange.official import import_features
from stores.exchange.official_files import find_features
from stores.store import Store

folder = Path(sys.argv[1])
features = find_features(folder / "in")
store = Store.create(folder / "s", schema=features.schema, fingerprints=features.fingerprints())
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
entries = list(import_features(features, store, shard_rows=1024))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_memory_does_not_grow_with_the_files(tmp_path):
    (tmp_path / "in").mkdir()
    array = np.lib.format.open_memmap(
        tmp_path / "in" / "sspace_noise_feat.npy", "w+", np.float32, (6144, 6048)
    )
    array.flush()
    result = subprocess.run(
        [sys.executable, "-c", MEASURED, str(tmp_path)], capture_output=True, text=True, check=True
    )
    file_kb = array.nbytes / 1024
    assert int(result.stdout) < 0.75 * file_kb
