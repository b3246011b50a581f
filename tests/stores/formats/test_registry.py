import subprocess
import sys
from pathlib import Path

import pytest

from stores.errors import ShardCorruptError
from stores.formats import hdf5, webdataset
from stores.formats.registry import format_of, shard_format
from stores.layout import SHARD_SUFFIXES


def test_every_format_has_a_module_and_a_suffix():
    modules = {"hdf5": hdf5, "webdataset": webdataset}
    assert {name: shard_format(name) for name in SHARD_SUFFIXES} == modules
    for name, suffix in SHARD_SUFFIXES.items():
        assert format_of(Path(f"a-000000{suffix}")) is modules[name]


def test_files_of_no_format_are_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ShardCorruptError, match=r"notes\.txt"):
        format_of(tmp_path / "notes.txt").read_header(tmp_path / "notes.txt")


def test_tar_stores_are_read_without_h5py():
    code = "import sys, stores.reader, stores.formats.webdataset as w; print('h5py' in sys.modules)"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert said.stdout.strip() == b"False"
