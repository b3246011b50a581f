"""The command line with stores on S3, each command in a process of its own."""

import json
import shutil
import socket
import tarfile

import fsspec
import numpy as np
import pytest

from flows.steps.looking import StorePictures
from stores.reader import StoreReader

pytestmark = pytest.mark.timeout(900)  # real processes, on a busy machine, too


@pytest.fixture
def remote(s3, call, tmp_path):
    """Run `deltaedit` where it finds the local S3."""
    env = s3.env | {"DELTAEDIT_CACHE": str(tmp_path / "cache")}

    def call_remote(*arguments, code=0, **more):
        before = f"os.environ.update({env | more!r})"
        return call(*arguments, code=code, before=before)

    return call_remote


@pytest.fixture
def bucket(s3):
    return f"s3://{s3.new_bucket()}"


def copy_first(images, count, folder):
    """A new folder with the first `count` of a folder's images."""
    folder.mkdir()
    for image in sorted(images.glob("*.png"))[:count]:
        shutil.copy(image, folder)
    return folder


def test_images_are_encoded_into_a_bucket_and_the_run_resumes(
    remote, bucket, faces, small_shards, tmp_path
):
    some = copy_first(faces, 20, tmp_path / "some")
    command = ("precompute", some, f"{bucket}/faces.store", *small_shards, "--json")
    first = json.loads(remote(*command).out)
    assert (first["store"], first["rows"], first["shards_made"]) == (
        f"{bucket}/faces.store",
        20,
        2,
    )
    again = json.loads(remote(*command).out)
    assert (again["rows"], again["shards_made"]) == (20, 0)
    info = json.loads(remote("store", "info", f"{bucket}/faces.store", "--json").out)
    assert (info["rows"], info["inputs"], info["shards"]) == (20, 20, 2)
    assert "no problems found" in remote("store", "verify", f"{bucket}/faces.store").out


def test_images_in_a_bucket_give_the_shards_of_the_same_images_on_the_disk(
    remote, bucket, faces, small_shards, tmp_path
):
    some = copy_first(faces, 8, tmp_path / "some")
    with tarfile.open(some / "faces-0.tar", "w") as tar:
        for image in sorted(faces.glob("*.png"))[8:12]:
            tar.add(image, image.name)
    fsspec.filesystem("s3").put(str(some), f"{bucket}/in", recursive=True)
    for source, store in (
        (str(some), tmp_path / "l.store"),
        (f"{bucket}/in", tmp_path / "r.store"),
    ):
        remote("precompute", source, f"{source}/*.tar", store, *small_shards)
    made, there = (StoreReader(tmp_path / name) for name in ("l.store", "r.store"))
    assert len(made) == 12
    assert made.keys == there.keys
    for column in ("clip", "w_plus", "s"):
        np.testing.assert_array_equal(made.column(column), there.column(column))
    pictures = StorePictures(tmp_path / "r.store")
    for key in (there.keys[0], there.keys[-1]):
        picture = pictures.source(key)
        assert picture is not None, key
        assert picture.shape == (128, 128, 3)
    gone = remote("precompute", f"{bucket}/no", tmp_path / "n.store", *small_shards, code=2)
    assert "does not exist; check" in gone.err
    assert not (tmp_path / "n.store").exists()


def test_a_copied_store_is_indexed_searched_and_trained_from(remote, bucket, encoded, tmp_path):
    store, run = f"{bucket}/copy.store", tmp_path / "faces.run"
    fsspec.filesystem("s3").put(str(encoded), store, recursive=True)
    remote("index", store, "--neighbours", 4)
    key = json.loads((encoded / "inputs").glob("*.jsonl").__next__().read_text().splitlines()[0])
    found = remote("neighbours", store, "--key", key["key"], "-k", 2, "--sheet", tmp_path / "n.png")
    assert len(found.out.splitlines()) == 2
    remote("train", store, run, "--steps", 4, "--batch-size", 8)
    assert json.loads((run / "train.json").read_text())["store"] == store
    remote("evaluate", run)
    assert (tmp_path / "cache").is_dir()
    assert "GB" in remote("doctor").out


def test_mistakes_are_named(remote, bucket, faces, small_shards):
    missing = remote("store", "info", f"{bucket}/nothing.store", code=2)
    assert f"{bucket}/nothing.store is not a store" in missing.err
    unknown = remote("precompute", faces, "s3://no-such-bucket/a.store", *small_shards, code=1)
    assert "Make the bucket first" in unknown.err
    assert "no place" in remote("store", "info", "s3://", code=2).err
    report = remote("report", f"{bucket}/nothing.store", code=2)
    assert "give --out" in report.err


def test_an_endpoint_that_does_not_answer_is_named(remote, bucket):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{free.getsockname()[1]}"
    run = remote("store", "info", f"{bucket}/a.store", code=1, AWS_ENDPOINT_URL=endpoint)
    assert "Check the endpoint" in run.err
    assert "Traceback" not in run.err
