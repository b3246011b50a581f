import pytest

from stores.contents import is_store, leftovers, read_contents
from stores.layout import Layout

pytestmark = pytest.mark.parametrize("shard_format", ["hdf5", "webdataset"], indirect=True)


def test_a_folder_is_a_store_with_a_manifest_or_with_commit_marks(run, tmp_path):
    assert not is_store(tmp_path)
    run.main(str(run.make_source(tmp_path / "in", 10)), str(tmp_path / "a"), 5)
    assert is_store(tmp_path / "a")
    (tmp_path / "a" / "manifest.json").unlink()
    assert is_store(tmp_path / "a")


def test_contents_come_from_any_shard_that_can_be_read(run, tmp_path):
    run.main(str(run.make_source(tmp_path / "in", 20)), str(tmp_path / "a"), 5)
    expected = read_contents(tmp_path / "a")
    (tmp_path / "a" / "manifest.json").unlink()
    (tmp_path / "a" / run.shard_file(0)).write_text("damaged")
    found = read_contents(tmp_path / "a")
    assert (found.header, found.shards) == (expected.header, expected.shards)


def test_leftovers_are_hidden_temporary_files_alone(run, tmp_path):
    run.main(str(run.make_source(tmp_path / "in", 10)), str(tmp_path / "a"), 5)
    (tmp_path / "a" / ".manifest.json.1-ab.tmp").touch()
    (tmp_path / "a" / "entries" / ".t-000000.json.1-ab.tmp").touch()
    (tmp_path / "a" / "entries" / "visible.tmp").touch()
    names = sorted(path.name for path in leftovers(Layout(tmp_path / "a", "t")))
    assert names == [".manifest.json.1-ab.tmp", ".t-000000.json.1-ab.tmp"]
