"""SHA-256 of bytes and of files: what a manifest records and `verify` compares."""

import hashlib
from pathlib import Path

from stores.places import ObjectPath, is_url
from stores.source_files import read_part

BLOCK_BYTES = 2**20
"""What is read at once."""


def sha256_bytes(data: bytes) -> str:
    """The digest in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: Path | ObjectPath | str) -> str:
    """The digest of a file's bytes in hexadecimal, read in blocks.

    Raises:
        OSError: The file cannot be read.
        ObjectStoreError: The object store cannot be reached, or refuses.
    """
    if isinstance(path, ObjectPath):
        with path.reading() as remote:
            return hashlib.file_digest(remote, "sha256").hexdigest()
    with open(path, "rb") as file:  # noqa: PTH123 - names that are not UTF-8 come as str
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_part(path: str, offset_bytes: int, size_bytes: int) -> str:
    """The digest of a stretch of a file or object; shorter where that ends before.

    Raises:
        OSError: The file cannot be read.
        ObjectStoreError: The object store cannot be reached.
    """
    if is_url(path):  # in one request; no input is larger than memory
        return sha256_bytes(read_part(path, offset_bytes, size_bytes))
    digest = hashlib.sha256()
    with open(path, "rb") as file:  # noqa: PTH123 - as above
        file.seek(offset_bytes)
        while size_bytes > 0 and (block := file.read(min(size_bytes, BLOCK_BYTES))):
            digest.update(block)
            size_bytes -= len(block)
    return digest.hexdigest()
