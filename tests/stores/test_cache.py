import threading

import pytest

from stores.cache import cache_bytes, cached_copy, local_file
from stores.checksum import sha256_bytes
from stores.errors import ShardCorruptError
from stores.places import ObjectPath


@pytest.fixture
def path(tmp_path):
    path = ObjectPath(f"memory://{tmp_path.name}/a.h5", tmp_path / "cache")
    path.write_bytes(b"rows")
    return path


def test_a_local_file_is_its_own_copy(tmp_path):
    (tmp_path / "a").write_bytes(b"rows")
    assert cached_copy(tmp_path / "a", sha256_bytes(b"rows")) == tmp_path / "a"
    with local_file(tmp_path / "a") as local:
        assert local == tmp_path / "a"


def test_a_copy_is_made_once_and_named_by_its_digest(path):
    first = cached_copy(path, sha256_bytes(b"rows"))
    path.unlink()
    assert cached_copy(path, sha256_bytes(b"rows")) == first
    assert first.read_bytes() == b"rows"
    assert sha256_bytes(b"rows") in first.name
    assert cache_bytes(path.cache) == 4


def test_bytes_of_another_digest_are_refused_and_not_kept(path):
    with pytest.raises(ShardCorruptError, match=r"a\.h5 has the digest"):
        cached_copy(path, sha256_bytes(b"other"))
    assert cache_bytes(path.cache) == 0


def test_a_missing_object_is_damage(path, tmp_path):
    with pytest.raises(ShardCorruptError, match="is missing"):
        cached_copy(ObjectPath(f"{path.url}-not", tmp_path), sha256_bytes(b""))


def test_a_file_for_a_moment_is_not_kept(path):
    with local_file(path) as local:
        assert local.read_bytes() == b"rows"
    assert not local.exists()
    assert not path.cache.exists()


def test_many_may_ask_for_one_copy_at_once(path):
    copies = []
    threads = [
        threading.Thread(target=lambda: copies.append(cached_copy(path, sha256_bytes(b"rows"))))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {copy.read_bytes() for copy in copies} == {b"rows"}
    assert [file.name for file in path.cache.rglob("*") if file.is_file()] == [copies[0].name]
