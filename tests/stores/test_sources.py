import os
from pathlib import Path

import pytest

from stores.errors import KeyCollisionError, SourceError
from stores.sources import SourceItem, read_image_bytes, sampled_items, scan_images


def _write(folder: Path, **files: str) -> Path:
    for name, content in files.items():
        path = folder / name.replace("__", "/").replace("_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return folder


def _keys(*sources: object) -> list[str]:
    return [item.key for item in scan_images([str(source) for source in sources]).items]


def test_a_folder_is_listed_with_its_sub_folders_sorted_by_key(tmp_path):
    _write(tmp_path, b_png="1", sub__a_JPG="2", a_webp="3", notes_txt="4", _hidden_png="5")
    assert _keys(tmp_path) == ["a.webp", "b.png", "sub/a.JPG"]


def test_items_tell_size_and_time(tmp_path):
    _write(tmp_path, a_png="12345")
    os.utime(tmp_path / "a.png", ns=(7, 1_700_000_000_000_000_001))
    item = scan_images([tmp_path]).items[0]
    assert item == SourceItem("a.png", str(tmp_path / "a.png"), 5, 1_700_000_000_000_000_001)
    assert read_image_bytes(item) == b"12345"


def test_a_list_names_files_from_its_own_folder_whatever_their_suffix(tmp_path):
    _write(tmp_path, in__a_png="1", in__b_dat="2", c_png="3")
    (tmp_path / "list.txt").write_text(f"in/./a.png\n\nin/b.dat\n{tmp_path}/c.png\nin/no.png\n")
    scan = scan_images([f"@{tmp_path}/list.txt"])
    assert [item.key for item in scan.items] == sorted(
        ["in/a.png", "in/b.dat", f"{tmp_path}/c.png".lstrip("/")]
    )
    assert [reject[:2] for reject in scan.rejects] == [("in/no.png", "missing")]


def test_one_image_file_is_a_source(tmp_path):
    assert _keys(_write(tmp_path, a_png="1") / "a.png") == ["a.png"]


@pytest.mark.parametrize("make", [False, True])
def test_a_source_with_nothing_in_it_says_what_to_do(tmp_path, make):
    source = tmp_path / "source"
    if make:
        _write(source, notes_txt="no image")
    said = (
        "has no image in it: expected files ending in" if make else "does not exist; check the path"
    )
    with pytest.raises(SourceError, match=said):
        scan_images([source])


def test_a_missing_list_says_so(tmp_path):
    with pytest.raises(SourceError, match="cannot be read"):
        scan_images([f"@{tmp_path}/none.txt"])


def test_broken_and_circular_links_are_rejects_with_their_reason(tmp_path):
    _write(tmp_path, a_png="1")
    (tmp_path / "dead.png").symlink_to("nowhere.png")
    (tmp_path / "self.png").symlink_to("self.png")
    scan = scan_images([tmp_path])
    assert [item.key for item in scan.items] == ["a.png"]
    assert [reject[:2] for reject in scan.rejects] == [
        ("dead.png", "broken_symlink"),
        ("self.png", "broken_symlink"),
    ]


def test_links_to_folders_are_followed_and_circles_end(tmp_path):
    _write(tmp_path / "real", a_png="1", sub__b_png="2")
    (tmp_path / "real" / "sub" / "up").symlink_to(tmp_path / "real")
    (tmp_path / "top").mkdir()
    (tmp_path / "top" / "link").symlink_to(tmp_path / "real")
    assert _keys(tmp_path / "top") == ["link/a.png", "link/sub/b.png"]


def test_a_pipe_named_like_an_image_is_refused_and_not_waited_for(tmp_path):
    _write(tmp_path, a_png="1")
    os.mkfifo(tmp_path / "pipe.png")
    assert [reject[:2] for reject in scan_images([tmp_path]).rejects] == [
        ("pipe.png", "not_a_file")
    ]


def test_names_that_are_not_utf8_get_keys_and_are_read(tmp_path):
    name = b"caf\xe9.png"
    (tmp_path / os.fsdecode(name)).write_text("x")
    item = scan_images([tmp_path]).items[0]
    assert item.key == "caf%E9.png"
    assert read_image_bytes(item) == b"x"
    (tmp_path / "list.txt").write_bytes(name + b"\n")
    assert _keys(f"@{tmp_path}/list.txt") == ["caf%E9.png"]


@pytest.mark.parametrize("name", ["線 ü.png", "line\nbreak.png", "d/" * 100 + "x" * 250 + ".png"])
def test_unusual_names_are_their_own_keys(tmp_path, name):
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_text("x")
    assert _keys(tmp_path) == [name]


def test_of_files_with_the_same_bytes_the_first_key_stays(tmp_path):
    _write(tmp_path, c_png="same", a_png="same", b_png="size", z__a_png="same")
    scan = scan_images([tmp_path])
    assert [item.key for item in scan.items] == ["a.png", "b.png"]
    assert scan.duplicates == [("c.png", "a.png"), ("z/a.png", "a.png")]


def test_files_that_differ_late_are_no_duplicates(tmp_path):
    _write(tmp_path, a_png="x" * 70_000 + "1", b_png="x" * 70_000 + "2", c_png="x" * 70_000 + "2")
    assert scan_images([tmp_path]).duplicates == [("c.png", "b.png")]


def test_empty_files_are_inputs_each(tmp_path):
    scan = scan_images([_write(tmp_path, a_png="", b_png="")])
    assert [item.key for item in scan.items] == ["a.png", "b.png"]
    assert scan.duplicates == []


def test_one_key_for_two_files_is_refused_with_both_named(tmp_path):
    first, second = _write(tmp_path / "one", a_png="1"), _write(tmp_path / "two", a_png="2")
    with pytest.raises(KeyCollisionError, match=r"(?s)one/a.png.*two/a.png.*common parent"):
        scan_images([first, second])
    assert _keys(tmp_path) == ["one/a.png", "two/a.png"]


def test_a_source_given_twice_is_listed_once(tmp_path):
    _write(tmp_path, a_png="1")
    (tmp_path / "list.txt").write_text("a.png\n./a.png\n")
    assert _keys(tmp_path, tmp_path, f"@{tmp_path}/list.txt") == ["a.png"]


def test_a_file_that_vanished_is_missing_when_read(tmp_path):
    item = scan_images([_write(tmp_path, a_png="1")]).items[0]
    Path(item.path).unlink()
    with pytest.raises(SourceError, match="does not exist") as caught:
        read_image_bytes(item)
    assert caught.value.reason == "missing"


def test_what_may_not_be_read_is_a_reject_and_not_an_end(start, tmp_path):
    """In a process without the rights of root, which may read everything."""
    _write(tmp_path / "in", a_png="12", b_png="34", closed__c_png="5")
    (tmp_path / "in" / "a.png").chmod(0)
    (tmp_path / "in" / "closed").chmod(0)
    (tmp_path / "said").touch()
    for path in (tmp_path, tmp_path / "in"):
        path.chmod(0o755)
    (tmp_path / "said").chmod(0o666)
    code = """
import json
from stores.errors import SourceError
from stores.sources import SourceItem, read_image_bytes, scan_images
os.chdir(folder)
if os.getuid() == 0:
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
scan = scan_images(["in"])
try:
    read_image_bytes(SourceItem("a.png", "in/a.png"))
except SourceError as error:
    reason = error.reason
open("said", "w").write(json.dumps([[i.key for i in scan.items], scan.rejects, reason]))
"""
    process = start(code, folder=str(tmp_path))
    process.join()
    (tmp_path / "in" / "closed").chmod(0o755)
    said = (tmp_path / "said").read_text()
    assert process.exitcode == 0
    assert '["b.png"]' in said
    assert '["a.png", "unreadable"' in said
    assert '["closed/", "unreadable"' in said
    assert said.endswith('"unreadable"]')


def test_samples_have_keys_of_seed_and_index():
    scan = sampled_items(12, 3)
    assert len(scan.items) == 12
    assert scan.items[2] == SourceItem("z/3/10")
    with pytest.raises(SourceError, match="ask for 1 or more"):
        sampled_items(0, 3)
