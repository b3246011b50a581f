"""Tars of images through `deltaedit precompute`."""

import json
import os
import shutil
import signal

import numpy as np
import pytest
from webdataset import TarWriter

from stores.reader import StoreReader
from stores.verify import verify_store

NUM_TARS, PER_TAR = 3, 16


@pytest.fixture(scope="module")
def tars(faces, tmp_path_factory):
    """Avatars in three tars as WebDataset writes them."""
    folder = tmp_path_factory.mktemp("tars")
    pictures = sorted(faces.glob("*.png"))
    for number in range(NUM_TARS):
        with TarWriter(str(folder / f"faces-{number:06}.tar")) as writer:
            for picture in pictures[number * PER_TAR : (number + 1) * PER_TAR]:
                sample = {"png": picture.read_bytes(), "json": {"name": picture.name}}
                writer.write({"__key__": picture.stem} | sample)
    return folder


@pytest.fixture(scope="module")
def pattern(tars):
    return f"{tars}/faces-{{000000..{NUM_TARS - 1:06}}}.tar"


@pytest.fixture(scope="module")
def from_tars(call, pattern, small_shards, tmp_path_factory):
    store = tmp_path_factory.mktemp("store") / "tars.store"
    call("precompute", pattern, store, *small_shards)
    return StoreReader(store)


def test_rows_of_members_are_those_of_the_same_files_in_a_folder(from_tars, encoded):
    assert len(from_tars) == NUM_TARS * PER_TAR
    files = StoreReader(encoded)
    for row, key in enumerate(from_tars.keys):
        tar, _, member = key.partition("::")
        assert tar.startswith("faces-00000")
        other = files.rows([files.index_of(member)], ["clip", "s"])
        for name, value in from_tars.rows([row], ["clip", "s"]).items():
            scale = np.abs(other[name]).max()
            np.testing.assert_allclose(value, other[name], rtol=0, atol=1e-2 * scale)


def test_a_killed_run_goes_on_and_ends_with_the_same_rows(
    start, call, pattern, small_shards, from_tars, tmp_path
):
    store = tmp_path / "s"
    run = start("precompute", pattern, store, *small_shards)
    run.wait_until(lambda: any(store.glob("entries/*.json")))
    run.process.kill()
    assert run.wait() == -signal.SIGKILL
    kept = len(list(store.glob("entries/*.json")))
    again = call("precompute", pattern, store, *small_shards, "--json")
    assert json.loads(again.out)["shards_made"] == NUM_TARS - kept
    reader = StoreReader(store)
    assert reader.keys == from_tars.keys
    np.testing.assert_array_equal(reader.column("s"), from_tars.column("s"))
    assert verify_store(store, full=True) == []


def test_a_cut_tar_gives_what_is_whole_and_once_mended_the_rest(call, tars, small_shards, tmp_path):
    shutil.copytree(tars, tmp_path / "in")
    cut, whole = tmp_path / "in/faces-000001.tar", tars / "faces-000001.tar"
    os.truncate(cut, whole.stat().st_size // 2)
    arguments = ("precompute", f"{tmp_path}/in/*.tar", tmp_path / "s", *small_shards, "--json")
    first = json.loads(call(*arguments, "--max-reject-rate", 0.2).out)
    assert first["inputs"] == first["rows"] + first["rejects"]
    assert 2 * PER_TAR < first["rows"] < 3 * PER_TAR
    rejects = {reject.key: reject.reason for reject in StoreReader(tmp_path / "s").rejects()}
    assert rejects["faces-000001.tar"] == "truncated"
    shutil.copy2(whole, cut)
    second = json.loads(call(*arguments).out)
    assert (second["inputs"], second["rejects"]) == (NUM_TARS * PER_TAR, 0)


def test_contact_sheets_show_members(from_tars):
    from flows.steps.looking import StorePictures

    pictures = StorePictures(from_tars.path)
    assert pictures.source(from_tars.keys[5]) is not None
    assert pictures.source("faces-000009.tar::none.png") is None


def test_a_missing_tar_of_a_pattern_is_a_wrong_call(call, tars, small_shards, tmp_path):
    pattern = f"{tars}/faces-{{000000..000003}}.tar"
    run = call("precompute", pattern, tmp_path / "s", *small_shards, code=2)
    assert "faces-000003.tar' of the source" in run.err
    assert not (tmp_path / "s").exists()
