"""A reader that was written from docs/store-format.md alone: it imports nothing of this project."""

import base64
import hashlib
import io
import json
import re
import shutil
import tarfile
from pathlib import Path

import h5py
import numpy as np
import pytest

from stores.plan import plan_shards
from stores.reader import StoreReader
from stores.scaling import Moments
from stores.schema import Column, Schema
from stores.sources import scan_images
from stores.store import Store

DOCUMENT = Path(__file__).parents[2] / "docs" / "store-format.md"
SHARD_ROWS = 8


class Stranger:
    """Reads a store with json, hashlib, h5py and tarfile."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.manifest = json.loads((path / "manifest.json").read_bytes())
        assert (self.manifest["format"], self.manifest["version"]) == ("deltaedit-store", 1)
        marks = sorted((path / "entries").glob("*.json"))
        self.entries = sorted(
            (json.loads(m.read_bytes()) for m in marks), key=lambda e: e["number"]
        )

    def files(self) -> set[str]:
        """Every file that the entries and the manifest account for, its digest compared."""
        suffix = {"hdf5": ".h5", "webdataset": ".tar"}[self.manifest["shard_format"]]
        found = {"manifest.json"} | {f"entries/{entry['name']}.json" for entry in self.entries}
        for entry in self.entries:
            for place, digest in (
                (f"shards/{entry['name']}{suffix}", entry["sha256"]),
                (f"inputs/{entry['name']}.jsonl", entry["inputs_sha256"]),
                (f"rejects/{entry['name']}.jsonl", entry["rejects_sha256"]),
            ):
                if digest is not None:
                    self._check(place, digest)
                    found.add(place)
            assert (self.path / f"shards/{entry['name']}{suffix}").stat().st_size == entry["bytes"]
        self._check("rejects/scan.jsonl", self.manifest["rejects"]["scan_sha256"])
        return found | {"rejects/scan.jsonl"}

    def _check(self, place: str, digest: str) -> None:
        assert hashlib.sha256((self.path / place).read_bytes()).hexdigest() == digest, place

    def rows(self) -> tuple[list[str], dict[str, np.ndarray]]:
        """All keys and the values of every column, in the order of shard numbers."""
        read = {"hdf5": self._hdf5, "webdataset": self._tar}[self.manifest["shard_format"]]
        parts = [read(entry["name"]) for entry in self.entries]
        keys = [key for part, _ in parts for key in part]
        columns = self.manifest["schema"]
        return keys, {
            c["name"]: self._values(c, np.concatenate([rows[c["name"]] for _, rows in parts]))
            for c in columns
        }

    def _hdf5(self, name: str) -> tuple[list[str], dict[str, np.ndarray]]:
        with h5py.File(self.path / "shards" / f"{name}.h5") as file:
            assert (file.attrs["format"], file.attrs["version"]) == ("deltaedit-store", 1)
            for fingerprint, value in self.manifest["fingerprints"].items():
                assert file.attrs[f"fingerprint.{fingerprint}"] == value
            header = json.loads(file.attrs["header"])
            assert header == {member: self.manifest[member] for member in header}
            for column in self.manifest["schema"]:
                place = file[column["name"]].id.get_offset()
                size_bytes = np.dtype(column["dtype"]).itemsize * int(np.prod(column["shape"]))
                assert size_bytes < 512 or place % 4096 == 0
            keys = file["key"].asstr()[()].tolist()
            return keys, {c["name"]: file[c["name"]][()] for c in self.manifest["schema"]}

    def _tar(self, name: str) -> tuple[list[str], dict[str, np.ndarray]]:
        keys: list[str] = []
        rows = {column["name"]: [] for column in self.manifest["schema"]}
        with tarfile.open(self.path / "shards" / f"{name}.tar") as tar:
            first, *members = tar
            head = json.load(tar.extractfile(first))
            assert (first.name, head["format"], head["version"]) == (
                "__header__",
                "deltaedit-store",
                1,
            )
            for member in members:
                data = tar.extractfile(member).read()
                column = member.name.partition(".")[2].removesuffix(".npy")
                if column == "json":
                    keys.append(json.loads(data)["key"])
                else:
                    rows[column].append(np.load(io.BytesIO(data), allow_pickle=False))
        assert (head["keys"], head["rows"]) == (keys, len(keys))
        return keys, {name: np.stack(values) for name, values in rows.items()}

    @staticmethod
    def _values(column: dict, stored: np.ndarray) -> np.ndarray:
        assert (list(stored.shape[1:]), str(stored.dtype)) == (column["shape"], column["dtype"])
        if "scaling" not in column:
            return stored
        scaling = column["scaling"]
        mean, scale = (base64.b64decode(scaling[name]) for name in ("mean", "scale"))
        assert hashlib.sha256(mean + scale).hexdigest() == scaling["sha256"]
        mean, scale = (
            np.frombuffer(part, "<f4").reshape(column["shape"]) for part in (mean, scale)
        )
        return stored.astype("float32") * scale + mean

    def lines(self, place: str) -> list[dict]:
        """A list: one JSON object a line."""
        path = self.path / place
        return [json.loads(line) for line in path.read_text("ascii").splitlines() if line]

    def is_held_out(self, key: str) -> bool:
        """By the rule of the split."""
        head = hashlib.sha256(key.encode()).digest()[:8]
        return int.from_bytes(head, "big") < self.manifest["split"]["eval_fraction"] * 2**64


@pytest.fixture(params=["hdf5", "webdataset"])
def path(request, run, tmp_path):
    """A store with every kind of file that a run makes, beside what a killed one leaves."""
    source = run.make_source(tmp_path / "in", 45)
    (source / "ü~.% x").mkdir()
    (source / "ü~.% x" / ("long" * 40 + ".png")).write_text("an image")
    seen = np.concatenate([run.row_of(str(i), b"")["s"] for i in range(50)])
    moments = Moments((5, 40))
    moments.add(seen)
    scaled = Column("s", (5, 40), "float16", moments.scaling())
    store = Store.create(
        tmp_path / "a.store",
        name="t",
        schema=Schema((Column("clip", (16,), "float32"), scaled)),
        fingerprints=run.FINGERPRINTS,
        split_eval=0.25,
        shard_format=request.param,
    )
    with store.lock():
        run.commit_all(store, str(source), SHARD_ROWS)
        run.commit_shard(store, _one_more(store, source))  # its manifest was never written
    (shard,) = (store.path / "shards").glob("t-000000.*")
    shutil.copy(shard, shard.with_name(f"t-000099{shard.suffix}"))  # killed before its mark
    (shard.parent / ".t-000100.x.tmp").write_bytes(b"half")
    return store.path


def _one_more(store: Store, source: Path):
    (source / "z.png").write_text("one more image")
    (plan,) = plan_shards(scan_images([source]), store, SHARD_ROWS).shards
    return plan


def test_a_stranger_reads_what_the_project_reads(path):
    stranger, ours = Stranger(path), StoreReader(path)
    keys, values = stranger.rows()
    assert keys == list(ours.keys)
    assert len(keys) > 20
    for name in ("clip", "s"):
        np.testing.assert_array_equal(values[name], ours.column(name))
    np.testing.assert_array_equal([stranger.is_held_out(key) for key in keys], ours.eval_mask)


def test_a_stranger_accounts_for_every_file_and_every_input(path, tmp_path):
    stranger = Stranger(path)
    there = {p.relative_to(path).as_posix() for p in path.rglob("*") if p.is_file()}
    left = {name for name in there if name.endswith((".lock", ".tmp")) or "t-000099" in name}
    assert stranger.files() == there - left
    rejects = duplicates = 0
    inputs = {line["key"] for line in stranger.lines("rejects/scan.jsonl")}
    for line in stranger.lines("rejects/scan.jsonl"):
        duplicates += line["reason"] == "duplicate"
        rejects += line["reason"] != "duplicate"
    for entry in stranger.entries:
        listed = stranger.lines(f"inputs/{entry['name']}.jsonl")
        keys = [line["key"] for line in listed]
        assert keys == sorted(keys)
        assert (keys[0], keys[-1]) == (entry["first_key"], entry["last_key"])
        assert len(keys) == entry["inputs"] == entry["rows"] + entry["rejects"]
        for line in listed:
            found = tmp_path / "in" / line["key"]
            assert line["size_bytes"] == found.stat().st_size
            assert line["sha256"] == hashlib.sha256(found.read_bytes()).hexdigest()
        rejects += entry["rejects"] - entry["retries"]
        inputs |= set(keys)
    rows = sum(entry["rows"] for entry in stranger.entries)
    assert len(inputs) == rows + rejects + duplicates == 47
    assert min(rejects, duplicates) > 0


def test_every_member_that_is_written_is_in_the_document_and_the_other_way_round(path):
    (text,) = re.findall(r"```json\n(\{\n \"format\".*?)```", DOCUMENT.read_text(), re.DOTALL)
    documented, written = json.loads(text), json.loads((path / "manifest.json").read_bytes())
    assert written.keys() == documented.keys()
    for name in ("split", "counts", "rejects"):
        assert written[name].keys() == documented[name].keys(), name
    optional = {"listing_sha256"}
    for entry in (*written["shards"], *Stranger(path).entries):
        assert entry.keys() - optional == documented["shards"][0].keys()
    assert [column.keys() for column in written["schema"]] == [
        {"name", "shape", "dtype"},
        {"name", "shape", "dtype", "scaling"},
    ]
    marks = {entry["name"]: entry for entry in Stranger(path).entries}
    assert all(marks[entry["name"]] == entry for entry in written["shards"])
    assert len(marks) == len(written["shards"]) + 1
