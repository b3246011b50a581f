import hashlib

from stores.checksum import sha256_bytes, sha256_file, sha256_part


def test_digests_of_bytes_and_files_agree_with_hashlib(tmp_path):
    data = bytes(range(256)) * 3000
    (tmp_path / "a").write_bytes(data)
    assert sha256_file(tmp_path / "a") == sha256_bytes(data) == hashlib.sha256(data).hexdigest()
    assert sha256_part(str(tmp_path / "a"), 7, 1000) == sha256_bytes(data[7:1007])
    assert sha256_part(str(tmp_path / "a"), 5, 10**9) == sha256_bytes(data[5:])
