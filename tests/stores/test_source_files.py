"""Images in object stores: listed, compared and read as those of a folder."""

import io
import os
import secrets
import tarfile

import fsspec
import pytest

from stores.errors import KeyCollisionError, ObjectStoreError, SourceError
from stores.plan import plan_shards
from stores.schema import Column, Schema
from stores.sources import SourceItem, read_image_bytes, scan_images
from stores.store import Store

FILES = {
    "b.png": b"1",
    "sub/a.JPG": b"22",
    "sub/deep/線 ü x%25 [1].png": b"333",
    "notes.txt": b"none",
    ".hidden/c.png": b"4",
    ".d.png": b"5",
}
KEYS = ["b.png", "sub/a.JPG", "sub/deep/線 ü x%2525 [1].png"]


@pytest.fixture(params=["memory", "s3", "file"])
def place(request, tmp_path):
    """A URL that nothing is below yet."""
    if request.param == "s3":
        return f"s3://{request.getfixturevalue('s3').new_bucket()}/in"
    if request.param == "file":
        return f"file://{tmp_path}/in"
    return f"memory://sources-{secrets.token_hex(4)}/in"


def _put(place: str, files: dict[str, bytes]) -> str:
    system, root = fsspec.core.url_to_fs(place)
    for name, data in files.items():
        system.makedirs(f"{root}/{name}".rpartition("/")[0], exist_ok=True)
        system.pipe_file(f"{root}/{name}", data)
    return place


def _tar(*members: tuple[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def _read(*sources: str) -> dict[str, bytes]:
    return {item.key: read_image_bytes(item) for item in scan_images(sources).items}


def test_a_prefix_is_listed_and_read_like_a_folder(place, tmp_path):
    _put(place, FILES)
    expected = {key: FILES[key.replace("%25", "%", 1)] for key in KEYS}
    assert _read(place) == _read(f"{place}/") == expected
    for name, data in FILES.items():
        path = tmp_path / "copy" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    assert _read(str(tmp_path / "copy")) == expected


def test_one_object_patterns_and_lists_are_sources(place):
    _put(place, FILES | {"list.txt": b"b.png\nsub/./a.JPG\n\ngone.png\n"})
    assert _read(f"{place}/b.png") == {"b.png": b"1"}
    assert _read(f"{place}/{{sub,sub/deep}}/*.*") == {
        "sub/a.JPG": b"22",
        "sub/deep/線 ü x%2525 [1].png": b"333",
    }
    scan = scan_images([f"@{place}/list.txt"])
    assert [item.key for item in scan.items] == ["b.png", "sub/a.JPG"]
    assert [reject[:2] for reject in scan.rejects] == [("gone.png", "missing")]


def test_a_list_on_the_disk_may_name_urls(place, tmp_path):
    _put(place, FILES)
    (tmp_path / "list.txt").write_text(f"{place}/b.png\n{tmp_path}/l.png\n")
    (tmp_path / "l.png").write_text("local")
    assert sorted(_read(f"@{tmp_path}/list.txt").values()) == [b"1", b"local"]


def test_images_in_tars_are_read_by_range(place):
    data = os.urandom(70_000)
    tar = _tar(("x.png", data), ("x.json", b"{}"), ("y.png", b"y"))
    _put(place, {"a-000000.tar": tar, "a-000001.tar": _tar(("x.png", b"z"))})
    assert _read(f"{place}/a-{{000000..000001}}.tar") == {
        "a-000000.tar::x.png": data,
        "a-000000.tar::y.png": b"y",
        "a-000001.tar::x.png": b"z",
    }
    _put(place, {"a-000000.tar": tar[:60_000]})
    scan = scan_images([f"{place}/*.tar"])
    assert [reject[:2] for reject in scan.rejects] == [
        ("a-000000.tar", "truncated"),
        ("a-000000.tar::x.png", "truncated"),
    ]


def test_copies_are_found_and_a_changed_object_is_noticed(place, tmp_path):
    _put(place, {"a.png": b"same", "b.png": b"same", "c.png": b"else", "d.png": b""})
    scan = scan_images([place])
    assert [item.key for item in scan.items] == ["a.png", "c.png", "d.png"]
    assert scan.duplicates == [("b.png", "a.png")]
    store = Store.create(
        tmp_path / "s", schema=Schema((Column("clip", (2,), "float32"),)), fingerprints={}
    )
    before = plan_shards(scan, store, 10).shards[0].items
    _put(place, {"c.png": b"changed"})
    after = plan_shards(scan_images([place]), store, 10).shards[0].items
    assert [item.key for item in before if item not in list(after)] == ["c.png"]


def test_what_an_object_tells_alone_and_in_a_listing_agrees(place):
    _put(place, {"a.png": b"1234"})
    (listed,) = scan_images([place]).items
    (alone,) = scan_images([f"{place}/a.png"]).items
    assert listed == alone
    assert (listed.size_bytes, listed.mtime_ns > 10**18) == (4, True)


def test_a_source_that_is_not_there_or_has_no_image_says_so(place):
    _put(place, {"notes.txt": b"none"})
    with pytest.raises(SourceError, match="has no image in it"):
        scan_images([place])
    for missing in (f"{place}/no", f"{place}/no*.tar", f"{place}/a-{{0..1}}.tar"):
        with pytest.raises(SourceError, match="does not exist"):
            scan_images([missing])
    with pytest.raises(SourceError, match="cannot be read"):
        scan_images([f"@{place}/no.txt"])


def test_two_objects_of_one_key_are_refused_and_one_named_twice_is_one(place):
    _put(place, {"one/a.png": b"1", "two/a.png": b"2"})
    assert _read(f"{place}/one", f"{place}/one") == {"a.png": b"1"}
    with pytest.raises(KeyCollisionError, match=r"both give the key 'a.png'"):
        scan_images([f"{place}/one", f"{place}/two"])


def test_an_object_that_is_gone_or_cut_is_its_own_reject(place):
    _put(place, {"a.png": b"1", "a.tar": _tar(("x.png", b"x" * 3000))})
    image, member = (*scan_images([place]).items, *scan_images([f"{place}/a.tar"]).items)
    system, root = fsspec.core.url_to_fs(place)
    system.rm_file(f"{root}/a.png")
    _put(place, {"a.tar": b"x" * 1000})
    for item, reason in ((image, "missing"), (member, "truncated")):
        with pytest.raises(SourceError) as caught:
            read_image_bytes(item)
        assert caught.value.reason == reason


def test_a_refused_object_is_a_reject_and_a_silent_store_ends_the_run(s3):
    url = _put(f"s3://{s3.new_bucket()}/in", {"a.png": b"1"})
    (item,) = scan_images([url]).items
    s3.hook = lambda environ: "403 AccessDenied" if environ["REQUEST_METHOD"] == "GET" else None
    with pytest.raises(SourceError, match="the object store refuses it") as caught:
        read_image_bytes(item)
    assert caught.value.reason == "unreadable"
    s3.hook = lambda environ: "403 ExpiredToken" if environ["REQUEST_METHOD"] == "GET" else None
    with pytest.raises(ObjectStoreError, match="Give credentials"):
        read_image_bytes(item)
    with pytest.raises(ObjectStoreError, match="Give credentials"):
        scan_images([url])
    with pytest.raises(ObjectStoreError, match="Install the fsspec package"):
        scan_images(["nosuch://bucket/in"])


def test_an_input_is_known_by_its_url(s3):
    url = _put(f"s3://{s3.new_bucket()}/in", {"a::b.png": b"1"})
    (item,) = scan_images([url]).items
    assert item == SourceItem("a::b.png", f"{url}/a::b.png", 1, item.mtime_ns)
    assert read_image_bytes(item) == b"1"


def test_an_image_is_one_request(s3):
    url = _put(f"s3://{s3.new_bucket()}/in", {"a.png": b"1", "b.png": b""})
    items = scan_images([url]).items
    asked = []
    s3.hook = lambda environ: asked.append(environ["REQUEST_METHOD"])
    assert [read_image_bytes(item) for item in items] == [b"1", b""]
    assert asked == ["GET", "GET"]
