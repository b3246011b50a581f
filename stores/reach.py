"""The file systems of fsspec, and what goes wrong with them in this package's own words."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from stores.errors import ObjectStoreError, OutOfSpaceError

_TAKEN = frozenset({"PreconditionFailed", "ConditionalRequestConflict", "412", "409"})
_NO_ROOM = frozenset({"QuotaExceeded", "XMinioStorageFull", "InsufficientStorage", "507"})


@contextmanager
def reaching(url: str) -> Iterator[tuple[Any, str]]:
    """The file system of an object, its key there, and the errors of either as our own."""
    try:
        yield _file_system(url)
    except (FileNotFoundError, FileExistsError, ObjectStoreError):
        raise
    # Every file system of fsspec brings exceptions of its own, not all of them OSErrors.
    except Exception as error:
        raise explained(url, error) from error


@contextmanager
def writing(url: str) -> Iterator[tuple[Any, str]]:
    """As `reaching`, where what is missing can only be the bucket."""
    try:
        with reaching(url) as reached:
            yield reached
    except FileNotFoundError as error:
        raise ObjectStoreError(
            f"{url} cannot be written: {error}. Make the bucket first, or correct its name."
        ) from error


def _file_system(url: str) -> tuple[Any, str]:
    """Looked up at every use: fsspec keeps one for each process, and none survives a fork."""
    from fsspec.core import url_to_fs

    # A `::` in a name would be taken for a chain of file systems, so only the bucket is shown. A
    # listing that fsspec remembers would hide what other processes commit.
    protocol, _, place = url.partition("://")
    bucket = f"{protocol}://{place.partition('/')[0]}"
    files, _ = url_to_fs(bucket, use_listings_cache=False)
    return files, files._strip_protocol(url)  # noqa: SLF001 - no public way


def explained(url: str, error: Exception) -> Exception:
    """The error of this package that says what another library's means."""
    code = error_code(error)
    if code in _TAKEN:
        return FileExistsError(f"{url} exists")
    if code in _NO_ROOM:
        return OutOfSpaceError(
            f"no room to write {url} ({error}): the quota or the disks of the object store are "
            "full. Everything committed before is safe; free space and run the same command again."
        )
    return ObjectStoreError(f"{url}: {type(error).__name__}: {error}. {_advice(error)}")


def error_code(error: BaseException | None) -> str | None:
    """What S3 and its like call an error: s3fs keeps their answer as the cause of its own."""
    while error is not None:
        answer = getattr(error, "response", None)
        if isinstance(answer, dict):
            return str(answer.get("Error", {}).get("Code"))
        error = error.__cause__
    return None


def _advice(error: Exception) -> str:
    if isinstance(error, ImportError | ValueError):
        return "Install the fsspec package of this kind of URL, or correct the URL."
    if isinstance(error, PermissionError) or "Credentials" in type(error).__name__:
        return "Give credentials that may list, read and write there (docs/object-stores.md)."
    return (
        "Check the endpoint and the network (docs/object-stores.md); what is committed is safe, "
        "and the same command resumes."
    )
