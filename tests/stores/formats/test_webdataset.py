import io
import json
import subprocess
import tarfile
from urllib.parse import unquote

import numpy as np
import pytest
import webdataset

from stores.errors import SchemaMismatchError, ShardCorruptError
from stores.formats import webdataset as tars
from stores.formats.common import decode_keys
from stores.formats.webdataset import map_shard, member_name, read_header
from stores.schema import Column, Schema

SCHEMA = Schema(
    (
        Column("clip", (7,), "float32"),
        Column("w_plus", (2, 600), "float16"),
        Column("seed", (), "int64"),
    )
)
HEADER = {"name": "a", "fingerprints": {"clip": "aa", "w_plus": "bb"}}
KEYS = [
    "a.png",
    "ü/線.v2.png",
    "line\nbreak %2E ~x",
    "x" * 500,
    "x" * 499 + "y",
    "../../up.png",
    "/absolute//path/",
    "__meta__/a.b",
    "__meta__",
    " ",
    "z/0/17",
    "photos.tar::b/c.jpg",
]


def write_shard(path, *arguments) -> None:
    buffer = io.BytesIO()
    tars.write_shard(buffer, *arguments)
    path.write_bytes(buffer.getvalue())


def _rows(num_rows: int = len(KEYS)) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        "clip": rng.standard_normal((num_rows, 7)).astype("float32"),
        "w_plus": rng.standard_normal((num_rows, 2, 600)).astype("float16"),
        "seed": rng.integers(0, 2**60, num_rows),
    }


def _write(path, num_rows: int = len(KEYS)) -> None:
    write_shard(path, KEYS[:num_rows], _rows(num_rows), SCHEMA, HEADER)


def test_webdataset_itself_reads_every_row_and_nothing_else(tmp_path):
    _write(tmp_path / "a.tar")
    samples = list(webdataset.WebDataset(str(tmp_path / "a.tar"), shardshuffle=False).decode())
    assert [sample["json"]["key"] for sample in samples] == KEYS
    for row, sample in enumerate(samples):
        assert {name for name in sample if not name.startswith("__")} == {
            "clip.npy",
            "w_plus.npy",
            "seed.npy",
            "json",
        }
        for name, expected in _rows().items():
            found = sample[f"{name}.npy"]
            assert found.dtype == expected.dtype
            np.testing.assert_array_equal(found, expected[row])


def test_names_of_members_give_the_keys_back_unless_they_are_too_long(tmp_path):
    _write(tmp_path / "a.tar")
    samples = webdataset.WebDataset(str(tmp_path / "a.tar"), shardshuffle=False)
    found = [sample["__key__"] for sample in samples]
    assert len(set(found)) == len(KEYS)
    for key, name in zip(KEYS, found, strict=True):
        assert unquote(name) == key if len(key) < 100 else "~" in name
        assert "." not in name
        assert "/" not in name


@pytest.mark.parametrize("num_rows", [0, 1, len(KEYS)])
def test_rows_come_back_mapped(tmp_path, num_rows):
    _write(tmp_path / "a.tar", num_rows)
    columns = map_shard(tmp_path / "a.tar", SCHEMA, num_rows)
    assert decode_keys(columns["key"]) == KEYS[:num_rows]
    for name, expected in _rows(num_rows).items():
        np.testing.assert_array_equal(columns[name], expected)
        assert columns[name].dtype == expected.dtype
        assert num_rows == 0 or not columns[name].flags.writeable


def test_more_rows_than_fit_in_a_buffer_are_written(tmp_path, monkeypatch):
    _write(tmp_path / "a.tar")
    monkeypatch.setattr("stores.formats.webdataset._BUFFER_BYTES", 20_000)
    _write(tmp_path / "b.tar")
    assert (tmp_path / "a.tar").read_bytes() == (tmp_path / "b.tar").read_bytes()


def test_every_member_is_a_plain_file_of_nobody_without_a_time(tmp_path):
    _write(tmp_path / "a.tar")
    with tarfile.open(tmp_path / "a.tar", "r:") as file:
        members = file.getmembers()
        assert [m.name for m in members[:2]] == ["__header__", "a%2Epng.clip.npy"]
        assert len(members) == 1 + 4 * len(KEYS)
        for member in members:
            assert (member.isreg(), member.mode, member.mtime) == (True, 0o644, 0)
            assert (member.uid, member.gid, member.uname, member.gname) == (0, 0, "", "")
        head = json.load(io.TextIOWrapper(file.extractfile("__header__")))
        npy = io.BytesIO(file.extractfile(members[1]).read())
        first = np.load(npy, allow_pickle=False)
    assert (head["format"], head["version"], head["rows"]) == ("deltaedit-store", 1, len(KEYS))
    np.testing.assert_array_equal(first, _rows()["clip"][0])


def test_tar_extracts_a_shard_into_one_folder(tmp_path):
    _write(tmp_path / "a.tar")
    (tmp_path / "out").mkdir()
    subprocess.run(["tar", "xf", str(tmp_path / "a.tar"), "-C", str(tmp_path / "out")], check=True)
    files = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert len(files) == 1 + 4 * len(KEYS)
    assert json.loads((tmp_path / "out" / "%2E%2E%2F%2E%2E%2Fup%2Epng.json").read_bytes()) == {
        "key": "../../up.png"
    }


def test_the_offsets_in_the_first_member_lead_to_any_row(tmp_path):
    """As docs/store-format.md says."""
    _write(tmp_path / "a.tar")
    data = (tmp_path / "a.tar").read_bytes()
    size = int(data[124:135], 8)
    head = json.loads(data[512 : 512 + size])
    begin = 512 + -(-size // 512) * 512
    row = 4
    assert head["keys"][row] == KEYS[row]
    place = begin + row * head["row_bytes"] + head["offsets"]["w_plus"]
    values = np.frombuffer(data, "<f2", 1200, place).reshape(2, 600)
    np.testing.assert_array_equal(values, _rows()["w_plus"][row])


def test_arrays_of_any_byte_memory_order_give_the_same_bytes(tmp_path):
    _write(tmp_path / "a.tar")
    rows = _rows()
    odd = {
        "clip": np.asfortranarray(rows["clip"]),
        "w_plus": rows["w_plus"][::-1][::-1],
        "seed": np.repeat(rows["seed"], 2)[::2],
    }
    write_shard(tmp_path / "b.tar", KEYS, odd, SCHEMA, HEADER)
    assert (tmp_path / "a.tar").read_bytes() == (tmp_path / "b.tar").read_bytes()


def test_a_shard_says_what_it_belongs_to(tmp_path):
    _write(tmp_path / "a.tar")
    assert read_header(tmp_path / "a.tar") == HEADER


@pytest.mark.parametrize("key", ["", "a\0b", "\udce9"])
def test_keys_that_are_not_text_are_refused_and_leave_no_file(tmp_path, key):
    with pytest.raises(SchemaMismatchError, match="key"):
        write_shard(tmp_path / "a.tar", [key, *KEYS[1:]], _rows(), SCHEMA, HEADER)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["S", "ß", "s" * 33])
def test_columns_that_webdataset_would_confuse_are_refused_and_leave_no_file(tmp_path, name):
    schema = Schema((Column(name, (2,), "float32"),))
    rows = {name: np.zeros((1, 2), "float32")}
    with pytest.raises(SchemaMismatchError, match="or the format hdf5"):
        write_shard(tmp_path / "a.tar", ["a"], rows, schema, HEADER)
    assert list(tmp_path.iterdir()) == []


def test_a_shard_cut_anywhere_even_between_members_is_refused(tmp_path):
    path = tmp_path / "a.tar"
    _write(path)
    whole = path.read_bytes()
    for length in {*range(0, len(whole), 512), *range(100, len(whole), 4999)}:
        path.write_bytes(whole[:length])
        with pytest.raises(ShardCorruptError, match=r"a\.tar cannot be read as a shard"):
            map_shard(path, SCHEMA, len(KEYS))


def test_shards_that_are_not_what_was_expected_are_refused(tmp_path):
    path = tmp_path / "a.tar"
    with pytest.raises(ShardCorruptError, match="cannot be read"):
        map_shard(path, SCHEMA, 4)
    _write(path, 4)
    with pytest.raises(ShardCorruptError, match="4 rows and 4 keys; its manifest entry says 5"):
        map_shard(path, SCHEMA, 5)
    other = Schema((Column("clip", (8,), "float32"),))
    with pytest.raises(ShardCorruptError, match=r"has no clip of shape \(8,\)"):
        map_shard(path, other, 4)
    with pytest.raises(ShardCorruptError, match="cannot be read"):
        map_shard(path, Schema((Column("s", (8,), "float32"),)), 4)
    data = path.read_bytes()
    path.write_bytes(data.replace(b'"version": 1', b'"version": 2', 1))
    for read in (lambda: map_shard(path, SCHEMA, 4), lambda: read_header(path)):
        with pytest.raises(ShardCorruptError, match="newer version needs a newer deltaedit"):
            read()


def test_a_tar_of_somebody_else_is_refused(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as file:
        file.addfile(tarfile.TarInfo("a.txt"))
    for read in (lambda: map_shard(tmp_path / "a.tar", SCHEMA, 1), read_header):
        with pytest.raises(ShardCorruptError, match="first member is not __header__"):
            read(tmp_path / "a.tar") if read is read_header else read()


def test_a_name_that_is_cut_differs_from_every_name_that_is_not():
    key = b"~" * 50
    cut = member_name(key, 89)
    assert len(cut) == 89
    assert member_name(cut.encode(), 200) != cut
