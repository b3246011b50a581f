"""The members of a tar file, found by reading its headers once; their bytes are left alone.

Tars of images are what WebDataset writes and what many data sets come as. Only plain ones have an
index that can be made by seeking from header to header: a compressed tar has to be unpacked first.
"""

import tarfile
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import NamedTuple

from stores.keys import key_of_name
from stores.records import Reject
from stores.source_files import opened

SEPARATOR = "::"
"""Between a tar and its member in a key: ``faces-000000.tar::00042.jpg``."""
TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")
"""Names that end so, in any case, are taken for tars; the compressed ones to be refused as such."""

_END_MARK = bytes(tarfile.BLOCKSIZE)


class Member(NamedTuple):
    """One file in a tar."""

    key: str
    """Key of the tar, `SEPARATOR`, and its path in the tar."""
    offset_bytes: int
    """Where its content begins in the tar."""
    size_bytes: int
    """Length of its content."""


def is_tar(name: str) -> bool:
    """Whether a file's name says that it is a tar."""
    return name.lower().endswith(TAR_SUFFIXES)


def tar_members(path: str, name: str, suffixes: frozenset[str]) -> Iterator[Member | Reject]:
    """The files in a tar whose names end in one of `suffixes`, in the order of the tar.

    A damaged tar gives the members before the damage, and last a reject with the key of the tar
    (`not_a_tar`, `truncated`); a member that cannot be read is a reject with its own key. Memory
    does not grow with the number of members.

    Args:
        path: The tar, or the URL of one.
        name: What its key is made from.
        suffixes: In lower case, with the dot. Names with a leading dot are skipped as in folders.

    Raises:
        OSError: The file cannot be read.
        ObjectStoreError: The object store that it is in does not answer.
    """
    with opened(path) as file:
        length = file.seek(0, 2)
        file.seek(0)
        try:
            archive = tarfile.open(  # noqa: SIM115 - closing it would only close `file`
                fileobj=file, mode="r:", encoding="utf-8", errors="surrogateescape"
            )
        except tarfile.TarError as error:
            yield Reject(key_of_name(name), "not_a_tar", _not_a_tar(path, error))
            return
        for header in _headers(archive):
            inner = PurePosixPath(header.name.removeprefix("./"))
            if not inner.name.startswith(".") and inner.suffix.lower() in suffixes:
                yield _member(header, key_of_name(f"{name}{SEPARATOR}{inner}"), path, length)
        file.seek(archive.offset)
        if file.read(tarfile.BLOCKSIZE) != _END_MARK:
            yield Reject(
                key_of_name(name),
                "truncated",
                f"{path!r} has {length} bytes and neither a header nor an end mark at byte "
                f"{archive.offset}: what was behind is lost; fetch or write the tar again",
            )


def _headers(archive: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """Headers up to the end or to the first damage."""
    while True:
        try:
            header = archive.next()
        except tarfile.TarError:  # the missing end mark tells the caller
            return
        if header is None:
            return
        # tarfile keeps every header for searches by name.
        archive.members.clear()  # pyright: ignore[reportAttributeAccessIssue] - not in its stubs
        yield header


def _member(header: tarfile.TarInfo, key: str, path: str, length: int) -> Member | Reject:
    if not header.isreg() or header.issparse():
        detail = (
            f"{header.name!r} in {path!r} is a link or a sparse file; write the tar anew with "
            "--dereference --hard-dereference"
        )
        return Reject(key, "not_a_file", detail)
    if header.offset_data + header.size > length:
        detail = (
            f"{path!r} ends within {header.name!r}, after {max(length - header.offset_data, 0)} of "
            f"its {header.size} bytes; fetch or write the tar again"
        )
        return Reject(key, "truncated", detail)
    return Member(key, header.offset_data, header.size)


def _not_a_tar(path: str, error: tarfile.TarError) -> str:
    return (
        f"{path!r} does not begin like a tar ({error}); a compressed tar has no random access and "
        "must be decompressed first (gunzip, zstd -d), anything else fetched again"
    )
