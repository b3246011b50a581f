"""Stores on read-only media, read while they are written, and with keys of every kind."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from stores.errors import ManifestError, StoreError
from stores.manifest import parse_manifest
from stores.reader import StoreReader
from stores.repair import repair_store
from stores.store import Store
from stores.verify import verify_store


@pytest.fixture
def made(run, tmp_path) -> Path:
    source = run.make_source(tmp_path / "in", 40)
    run.main(str(source), str(tmp_path / "t.store"), 10)
    return tmp_path / "t.store"


def _mount(*arguments: str) -> None:
    done = subprocess.run(["mount", *arguments], capture_output=True, check=False)
    if done.returncode:
        pytest.skip(f"mounting is not allowed here: {done.stderr.decode().strip()}")


@pytest.fixture
def read_only(made) -> Iterator[Path]:
    """The store, mounted over itself without the right to write."""
    _mount("--bind", str(made), str(made))
    try:
        _mount("-o", "remount,bind,ro", str(made))
        yield made
    finally:
        subprocess.run(["umount", str(made)], check=True)


def test_a_store_on_a_read_only_mount_is_read_and_verified_and_not_written_to(run, read_only):
    before = run.digests(read_only)
    reader = StoreReader(read_only)
    assert reader.rows(np.arange(len(reader)), ["s"])["s"].any()
    assert verify_store(read_only, full=True) == []
    assert not repair_store(read_only, dry_run=True).changed
    for write in (
        lambda: run.main(str(read_only.parent / "in"), str(read_only), 10),
        lambda: repair_store(read_only),
    ):
        with pytest.raises(StoreError, match=r"driver\.lock for writing: Read-only file system"):
            write()
    assert run.digests(read_only) == before


def test_who_may_only_read_a_store_reads_and_verifies_it(start, made, tmp_path):
    said = tmp_path / "said"
    said.touch()
    said.chmod(0o666)
    for path in (tmp_path, *tmp_path.parents):
        if path.owner() != "root" or path == Path("/tmp"):  # noqa: S108 - the end of pytest's own
            break
        path.chmod(0o755)
    for path in made.rglob("*"):
        path.chmod(0o555 if path.is_dir() else 0o444)
    made.chmod(0o555)
    code = """
import numpy as np
from stores.errors import StoreError
from stores.manifest import parse_manifest
from stores.reader import StoreReader
from stores.verify import verify_store
if os.getuid() == 0:
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
reader = StoreReader(path)
assert reader.rows(np.arange(len(reader)), ["s"])["s"].any()
assert verify_store(path, full=True) == []
try:
    run.main(source, path, 10)
except StoreError as error:
    open(said, "w").write(str(error))
"""
    process = start(code, path=str(made), source=str(tmp_path / "in"), said=str(said))
    process.join()
    assert process.exitcode == 0
    assert "driver.lock for writing: Permission denied" in said.read_text()


def test_what_a_reader_opens_during_a_run_is_whole_and_right(run, start, tmp_path):
    source, path = run.make_source(tmp_path / "in", 120), tmp_path / "t.store"
    contents = {str(p.relative_to(source)): p.read_bytes() for p in source.rglob("*.png")}
    process = start("run.main(source, path, 4)", source=str(source), path=str(path))
    lengths = [0]
    while process.is_alive():
        try:
            reader = StoreReader(path)
        except ManifestError:
            assert lengths == [0]  # it is not made yet
            continue
        rows = reader.rows(np.arange(len(reader)), ["s"])["s"]
        for key, row in zip(reader.keys, rows, strict=True):
            assert (row == run.row_of(key, contents[key])["s"]).all()
        lengths.append(len(reader))
    assert process.exitcode == 0
    assert lengths == sorted(lengths)
    assert len(set(lengths)) > 2, "it was never read half-way"


def test_of_two_runs_at_once_one_works_and_the_other_says_who(run, start, tmp_path):
    source = run.make_source(tmp_path / "in", 60)
    run.main(str(source), str(tmp_path / "reference.store"), 5)
    path = tmp_path / "t.store"
    code = """
from stores.errors import StoreBusyError
try:
    run.main(source, path, 5)
except StoreBusyError as error:
    open(said, "w").write(str(error))
"""
    names = {"source": str(source), "path": str(path)}
    said = [tmp_path / "said-0", tmp_path / "said-1"]
    processes = [start(code, **names, said=str(file)) for file in said]
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    refused = [which for which, file in enumerate(said) if file.exists()]
    assert len(refused) <= 1
    for which in refused:
        assert f"process {processes[1 - which].pid}" in said[which].read_text()
    assert run.digests(path) == run.digests(tmp_path / "reference.store")


NAMES = ("線 ü.png", "line\nbreak.png", "d/" * 120 + "x" * 250 + ".png", "%FF%25.png", " .png")


def test_keys_of_every_kind_are_written_resumed_verified_and_repaired(run, tmp_path):
    source, path = tmp_path / "in" / "deep", tmp_path / "t.store"
    for name in NAMES:
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_text(f"content of {name}")
    (source.parent / "up.png").write_text("content above")
    (source / "bad.png").write_text("bad one")
    listed = [*(name for name in NAMES if "\n" not in name), "../up.png", "bad.png"]
    (source / "list.txt").write_text("\n".join(listed))
    for sources in (str(source), f"@{source}/list.txt"):
        run.main(sources, str(path), 2)
    keys = [*NAMES, "../up.png"]
    reader = StoreReader(path)
    assert sorted(reader.keys) == sorted(set(keys) - {"%FF%25.png"} | {"%25FF%2525.png"})
    row = reader.rows([reader.index_of("../up.png")], ["s"])["s"][0]
    assert (row == run.row_of("../up.png", b"content above")["s"]).all()
    assert verify_store(path, full=True) == []
    before = run.digests(path)
    (path / "manifest.json").unlink()
    for mark in (path / "entries").iterdir():
        mark.unlink()
    repair_store(path)
    assert run.digests(path) == before
    assert sorted(file.name for file in tmp_path.iterdir()) == ["in", "t.store"]


def test_a_manifest_cut_at_any_of_its_last_4096_bytes_is_never_taken_for_whole(run, tmp_path):
    source = run.make_source(tmp_path / "in", 60)
    run.main(str(source), str(tmp_path / "t.store"), 4)
    path = tmp_path / "t.store" / "manifest.json"
    whole = path.read_bytes()
    assert len(whole) > 4096
    for length in range(len(whole) - 4096, len(whole) - 1):
        with pytest.raises(ManifestError, match="store repair"):
            parse_manifest(whole[:length], path)
    path.write_bytes(whole[:-300])
    with pytest.raises(ManifestError, match="store repair"):
        Store.open(path.parent)
    assert repair_store(path.parent).rebuilt == ["manifest.json"]
    assert path.read_bytes() == whole
