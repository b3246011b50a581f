import io
import os
import tarfile

import pytest

from stores.errors import KeyCollisionError, SourceError
from stores.found import IMAGE_SUFFIXES
from stores.records import Reject
from stores.sources import read_image_bytes, scan_images
from stores.tar_members import Member, is_tar, tar_members


def write_tar(path, *members, **options):
    """`members`: names with contents; a name may come twice."""
    with tarfile.open(path, "w", **options) as archive:
        for name, content in members:
            header = tarfile.TarInfo(name)
            header.size = len(content)
            archive.addfile(header, io.BytesIO(content))
    return path


def listed(path):
    return list(tar_members(str(path), path.name, IMAGE_SUFFIXES))


def keys(*sources):
    return [item.key for item in scan_images(sources).items]


def test_images_in_a_tar_become_inputs_with_the_key_of_tar_and_member(tmp_path):
    path = write_tar(
        tmp_path / "a.tar",
        *(("0001.jpg", b"one"), ("0001.json", b"{}"), ("d/0002.PNG", b"two"), ("._x.jpg", b"mac")),
    )
    os.utime(path, ns=(7, 1_700_000_000_000_000_001))
    items = scan_images([path]).items
    assert [item.key for item in items] == ["a.tar::0001.jpg", "a.tar::d/0002.PNG"]
    assert [read_image_bytes(item) for item in items] == [b"one", b"two"]
    assert {(item.size_bytes, item.mtime_ns) for item in items} == {(3, 1_700_000_000_000_000_001)}


@pytest.mark.parametrize("kind", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_every_format_of_tar_is_read_with_long_names(tmp_path, kind):
    name = "d/" * 60 + "é.png"
    path = write_tar(tmp_path / "a.tar", ("./x.png", b"1"), (name, b"22"), format=kind)
    assert keys(path) == [f"a.tar::{name}", "a.tar::x.png"]


def test_names_that_are_not_utf8_get_keys_and_are_read(tmp_path):
    name = os.fsdecode(b"caf\xe9.png")
    path = write_tar(tmp_path / "a.tar", (name, b"1"), format=tarfile.GNU_FORMAT)
    (item,) = scan_images([path]).items
    assert item.key == "a.tar::caf%E9.png"
    assert read_image_bytes(item) == b"1"


def test_tars_of_webdataset_are_read(tmp_path):
    from webdataset import TarWriter

    with TarWriter(str(tmp_path / "a.tar")) as writer:
        for number in range(3):
            writer.write({"__key__": f"{number:04}", "jpg": b"x" * number, "txt": "a face"})
    found = listed(tmp_path / "a.tar")
    assert [(member.key, member.size_bytes) for member in found] == [
        (f"a.tar::{number:04}.jpg", number) for number in range(3)
    ]


def test_patterns_name_many_tars(tmp_path):
    for number in range(3):
        write_tar(tmp_path / f"a-{number}.tar", ("x.png", b"%d" % number))
    expected = [f"a-{number}.tar::x.png" for number in range(3)]
    assert keys(f"{tmp_path}/a-{{0..2}}.tar") == keys(f"{tmp_path}/*.tar") == expected
    (tmp_path / "list.txt").write_text("a-0.tar\na-2.tar\n")
    assert keys(f"@{tmp_path}/list.txt") == expected[::2]


def test_members_with_the_same_bytes_are_duplicates_across_tars_and_files(tmp_path):
    write_tar(tmp_path / "a.tar", ("x.png", b"same"), ("y.png", b"else"))
    write_tar(tmp_path / "b.tar", ("x.png", b"same"))
    (tmp_path / "c.png").write_bytes(b"same")
    scan = scan_images([tmp_path / "a.tar", tmp_path / "b.tar", tmp_path / "c.png"])
    assert [item.key for item in scan.items] == ["a.tar::x.png", "a.tar::y.png"]
    assert scan.duplicates == [("b.tar::x.png", "a.tar::x.png"), ("c.png", "a.tar::x.png")]


def test_a_name_that_comes_twice_in_a_tar_is_refused(tmp_path):
    path = write_tar(tmp_path / "a.tar", ("x.png", b"1"), ("y.png", b"2"), ("x.png", b"3"))
    scan = scan_images([path])
    assert [item.key for item in scan.items] == ["a.tar::y.png"]
    assert [reject[:2] for reject in scan.rejects] == [("a.tar::x.png", "duplicate_member")]


def test_a_tar_given_twice_is_listed_once(tmp_path):
    path = write_tar(tmp_path / "a.tar", ("x.png", b"1"))
    assert keys(path, path, f"{tmp_path}/*.tar") == ["a.tar::x.png"]


def test_two_tars_of_one_name_are_refused_with_both_named(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        write_tar(tmp_path / name / "a.tar", ("x.png", name.encode()))
    with pytest.raises(KeyCollisionError, match=r"(?s)one/a\.tar.*two/a\.tar.*PARENT"):
        scan_images([tmp_path / "one/a.tar", tmp_path / "two/a.tar"])
    assert keys(f"{tmp_path}/*/*.tar") == ["one/a.tar::x.png", "two/a.tar::x.png"]


def test_links_in_a_tar_are_refused(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        header = tarfile.TarInfo("x.png")
        header.type, header.linkname = tarfile.SYMTYPE, "y.png"
        archive.addfile(header)
    (reject,) = listed(tmp_path / "a.tar")
    assert reject[:2] == ("a.tar::x.png", "not_a_file")


BLOCK = tarfile.BLOCKSIZE


@pytest.mark.parametrize(
    ("kept_bytes", "kept", "cut"),
    [
        (2 * BLOCK + 700, ["a.tar::0.png"], ["a.tar"]),  # in the second one's header
        (5 * BLOCK + 300, ["a.tar::0.png"], ["a.tar", "a.tar::1.png"]),  # in its content
        (6 * BLOCK, ["a.tar::0.png", "a.tar::1.png"], ["a.tar"]),  # between two
        (9 * BLOCK, ["a.tar::0.png", "a.tar::1.png", "a.tar::2.png"], ["a.tar"]),  # the end mark
    ],
)
def test_a_tar_that_was_cut_gives_what_is_whole_and_says_so(tmp_path, kept_bytes, kept, cut):
    contents = [(f"{number}.png", bytes([number]) * 2 * BLOCK) for number in range(3)]
    path = write_tar(tmp_path / "a.tar", *contents)
    os.truncate(path, kept_bytes)
    scan = scan_images([path])
    assert [item.key for item in scan.items] == kept
    assert [reject[:2] for reject in scan.rejects] == [(key, "truncated") for key in cut]
    assert [read_image_bytes(item) for item in scan.items] == [c for _, c in contents[: len(kept)]]


def test_a_damaged_header_does_not_end_a_tar_in_silence(tmp_path):
    path = write_tar(tmp_path / "a.tar", ("0.png", b"0"), ("1.png", b"1"), ("2.png", b"2"))
    data = bytearray(path.read_bytes())
    data[2 * BLOCK + 5] ^= 0xFF
    path.write_bytes(data)
    first, fault = listed(path)
    assert first == Member("a.tar::0.png", BLOCK, 1)
    assert fault[:2] == ("a.tar", "truncated")
    assert "at byte 1024" in fault.detail


@pytest.mark.parametrize("content", [b"", b"no tar", b"\x1f\x8b" + bytes(2000)])
def test_what_is_no_tar_is_a_reject(tmp_path, content):
    path = tmp_path / "a.tar"
    path.write_bytes(content)
    (reject,) = listed(path)
    assert reject[:2] == ("a.tar", "not_a_tar")
    assert "decompressed first" in reject.detail


def test_compressed_tars_are_told_to_be_unpacked(tmp_path):
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as archive:
        archive.addfile(tarfile.TarInfo("x.png"))
    assert is_tar("a.tar.gz")
    assert [r[:2] for r in scan_images([tmp_path / "a.tar.gz"]).rejects] == [
        ("a.tar.gz", "not_a_tar")
    ]


def test_a_tar_without_images_is_an_empty_source(tmp_path):
    with pytest.raises(SourceError, match="has no image in it"):
        scan_images([write_tar(tmp_path / "a.tar", ("x.txt", b"1"))])


def test_a_tar_that_is_gone_or_unreadable_is_a_reject_of_a_list(tmp_path):
    write_tar(tmp_path / "a.tar", ("x.png", b"1"))
    os.mkfifo(tmp_path / "p.tar")
    (tmp_path / "list.txt").write_text("a.tar\ngone.tar\np.tar\n")
    scan = scan_images([f"@{tmp_path}/list.txt"])
    assert [item.key for item in scan.items] == ["a.tar::x.png"]
    assert [r[:2] for r in scan.rejects] == [("gone.tar", "missing"), ("p.tar", "not_a_file")]


def test_a_tar_cut_after_it_was_listed_is_noticed(tmp_path):
    path = write_tar(tmp_path / "a.tar", ("x.png", b"x" * 1000))
    (item,) = scan_images([path]).items
    os.truncate(path, BLOCK + 10)
    with pytest.raises(SourceError, match="cut since it was listed"):
        read_image_bytes(item)


def test_memory_does_not_grow_with_the_members(tmp_path):
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as archive:
        for number in range(2000):
            archive.addfile(tarfile.TarInfo(f"{number}.png"))
    import tracemalloc

    tracemalloc.start()
    count = sum(isinstance(found, Member) for found in tar_members(str(path), "a", IMAGE_SUFFIXES))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 2000
    assert peak < 200_000  # 2000 headers are more than a megabyte


def test_rejects_of_members_have_their_own_keys(tmp_path):
    path = write_tar(tmp_path / "a.tar", ("0.png", bytes(3 * BLOCK)))
    os.truncate(path, 2 * BLOCK)
    assert [found.key for found in listed(path) if isinstance(found, Reject)] == [
        "a.tar::0.png",
        "a.tar",
    ]
