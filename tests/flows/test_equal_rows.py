"""Rows are those of their images, whatever else a run of `deltaedit precompute` is told."""

import shutil
from pathlib import PurePath

import numpy as np
import pytest

from stores.reader import StoreReader

ROUNDING = 1e-5
"""Of a row's length: products of another number of rows sum in another order."""


def rows_by_name(store):
    """Row numbers by file name, and the columns."""
    reader = StoreReader(store)
    numbers = {PurePath(key).name: row for row, key in enumerate(reader.keys)}
    return numbers, {name: reader.column(name) for name in reader.schema.names}


def farthest(store, other):
    """The largest difference of a row from the same image's in the other store, by column."""
    (numbers, columns), (others, theirs) = rows_by_name(store), rows_by_name(other)
    assert numbers.keys() == others.keys()
    order = [others[name] for name in numbers]
    found = {}
    for name, column in columns.items():
        ours = column.reshape(len(column), -1)
        expected = theirs[name][order].reshape(len(column), -1)
        errors = np.linalg.norm(ours - expected, axis=1)
        found[name] = float((errors / np.linalg.norm(expected, axis=1)).max())
    return found


@pytest.fixture(scope="module")
def halves(faces, tmp_path_factory):
    """The same images in two folders, every other one in each."""
    folders = [tmp_path_factory.mktemp("halves") / name for name in ("a", "b")]
    for number, file in enumerate(sorted(faces.glob("*.png"))):
        folder = folders[number % 2]
        folder.mkdir(exist_ok=True)
        shutil.copy(file, folder)
    return folders


@pytest.mark.parametrize(
    ("options", "order"),
    [
        (("--batch-size", 7, "--workers", 1, "--shard-rows", 50), -1),
        (("--batch-size", 64, "--workers", 3, "--shard-rows", 1024), 1),
    ],
)
def test_rows_do_not_depend_on_batch_size_workers_shards_or_order(
    call, encoded, halves, tmp_path, options, order
):
    store = tmp_path / "other.store"
    sources = halves[::order]
    call("precompute", *sources, store, "--models", "avatar", "--split-eval", 0.25, *options)
    differences = farthest(store, encoded)
    assert differences.keys() == {"clip", "w_plus", "s"}
    assert max(differences.values()) < ROUNDING, differences
