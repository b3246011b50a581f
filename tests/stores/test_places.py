import pickle
import socket
import time
from pathlib import Path

import pytest

from stores.errors import ObjectStoreError
from stores.places import ObjectPath, name_below, read_all, store_path


@pytest.fixture(params=["memory", "s3"])
def root(request, tmp_path):
    if request.param == "memory":
        return ObjectPath(f"memory://{tmp_path.name}/a.store", tmp_path / "cache")
    return ObjectPath(f"s3://{request.getfixturevalue('s3').new_bucket()}/a.store", tmp_path)


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("faces.store", Path("faces.store")),
        ("/data/faces.store", Path("/data/faces.store")),
        ("file:///data/faces.store", Path("/data/faces.store")),
        ("s3://bucket/faces.store", ObjectPath("s3://bucket/faces.store")),
        ("s3://bucket//faces.store/", ObjectPath("s3://bucket/faces.store")),
        ("memory://a", ObjectPath("memory://a")),
    ],
)
def test_a_place_is_a_folder_or_a_url(text, place):
    assert store_path(text) == place
    assert store_path(store_path(text)) == place


@pytest.mark.parametrize("text", ["s3://", "file://", "s3:///"])
def test_a_url_of_no_place_is_refused(text):
    with pytest.raises(ObjectStoreError, match="no place"):
        store_path(text)


def test_names_lead_down_and_up_and_survive_pickling(tmp_path):
    root = ObjectPath("s3://bucket/a.store", tmp_path)
    shard = root / "shards" / "a-000000.h5"
    assert (str(shard), shard.name, shard.stem) == (
        "s3://bucket/a.store/shards/a-000000.h5",
        "a-000000.h5",
        "a-000000",
    )
    assert (shard.parent.parent, shard.cache) == (root, tmp_path)
    assert name_below(shard, root) == "shards/a-000000.h5"
    assert name_below(Path("x/y/z"), Path("x")) == "y/z"
    copy = pickle.loads(pickle.dumps(shard))  # noqa: S301 - our own bytes
    assert (copy, copy.cache) == (shard, tmp_path)


def test_objects_are_written_read_listed_and_removed(root, tmp_path):
    for name in ("a.json", "b.json", "c.txt", "below/d.json"):
        (root / "entries" / name).write_bytes(name.encode())
    names = ["a.json", "b.json", "below", "c.txt"]
    assert [path.name for path in (root / "entries").iterdir()] == names
    assert [path.name for path in (root / "entries").glob("*.json")] == names[:2]
    assert sorted(name_below(path, root) for path in root.walk_files()) == [
        "entries/a.json",
        "entries/b.json",
        "entries/below/d.json",
        "entries/c.txt",
    ]
    b, a = root / "entries/b.json", root / "entries/a.json"
    assert read_all([b, a]) == [b"b.json", b"a.json"]
    assert (a.stat().st_size, a.exists(), (root / "entries").is_dir()) == (6, True, True)
    a.download(tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == b"a.json"
    a.unlink()
    a.unlink(missing_ok=True)
    assert not a.exists()


def test_what_is_missing_is_missing(root, tmp_path):
    assert not root.exists()
    assert list(root.glob("*")) == []
    assert list(root.walk_files()) == []
    for look in (
        root.read_bytes,
        root.stat,
        root.iterdir,
        lambda: root.download(tmp_path / "copy"),
        lambda: read_all([root / "a", root / "b"]),
    ):
        with pytest.raises(FileNotFoundError):
            look()


def test_an_object_is_created_once(root, tmp_path):
    (tmp_path / "local").write_bytes(b"other")
    root.create(b"first")
    with pytest.raises(FileExistsError):
        root.create(b"second")
    with pytest.raises(FileExistsError):
        root.upload(tmp_path / "local", exclusive=True)
    assert root.read_bytes() == b"first"
    root.upload(tmp_path / "local")
    assert root.read_bytes() == b"other"


UPLOAD = """
os.environ.update(env)
from pathlib import Path
from stores.places import ObjectPath
ObjectPath(url).upload(Path(local), exclusive=True)
"""


def test_an_upload_that_is_killed_half_way_leaves_nothing(start, s3, tmp_path):
    path = ObjectPath(f"s3://{s3.new_bucket()}/shards/a.h5", tmp_path)
    local = tmp_path / "local"
    local.write_bytes(bytes(32 * 2**20))  # more than the sockets hold
    process, halves = None, []

    def kill(environ):
        if environ["REQUEST_METHOD"] == "PUT" and not halves:
            halves.append(s3.read_half(environ))
            while process is None:
                time.sleep(0.01)
            process.kill()
            process.join()

    s3.hook = kill
    process = start(UPLOAD, url=path.url, local=str(local), env=s3.env)
    while process.is_alive():
        time.sleep(0.02)
    s3.hook = None
    assert halves == [16 * 2**20]
    assert not path.exists()
    path.upload(local, exclusive=True)
    assert path.stat().st_size == 32 * 2**20


@pytest.mark.usefixtures("s3")
def test_a_missing_bucket_is_named_when_writing(tmp_path):
    path = ObjectPath("s3://no-such-bucket/a", tmp_path)
    with pytest.raises(ObjectStoreError, match=r"s3://no-such-bucket/a .*Make the bucket"):
        path.write_bytes(b"")


def test_an_unknown_kind_of_url_says_what_to_install():
    with pytest.raises(ObjectStoreError, match="Install the fsspec package"):
        ObjectPath("nonsense://bucket/a").exists()


@pytest.mark.usefixtures("s3")
def test_missing_credentials_are_named(monkeypatch):
    import fsspec

    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    with pytest.raises(ObjectStoreError, match="Give credentials"):
        ObjectPath("s3://bucket/a").read_bytes()
    fsspec.get_filesystem_class("s3").clear_instance_cache()


@pytest.mark.usefixtures("s3")
def test_an_endpoint_that_does_not_answer_is_named(monkeypatch):
    import fsspec

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    with pytest.raises(ObjectStoreError, match=r"Check the endpoint.*the same command resumes"):
        ObjectPath("s3://bucket/a").read_bytes()
    fsspec.get_filesystem_class("s3").clear_instance_cache()
