"""SHA-256 of bytes and of files: what a manifest records and `verify` compares."""

import hashlib
from pathlib import Path

from stores.places import ObjectPath


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


def sha256_head(path: Path | str, size_bytes: int = 65536) -> str:
    """The digest of a file's first bytes: enough to tell most files of one size apart.

    Raises:
        OSError: The file cannot be read.
    """
    with open(path, "rb") as file:  # noqa: PTH123 - as above
        return sha256_bytes(file.read(size_bytes))
