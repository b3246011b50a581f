import errno
from pathlib import Path

import pytest

from stores.atomic import make_folder, replacing, write_atomic
from stores.errors import OutOfSpaceError, StoreError


def test_a_file_appears_with_its_whole_content(tmp_path):
    with replacing(tmp_path / "a") as temporary:
        temporary.write_text("new")
        assert not (tmp_path / "a").exists()
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("a", "new")]


def test_a_failing_block_leaves_the_old_file_and_nothing_else(tmp_path):
    write_atomic(tmp_path / "a", b"old")

    def fail() -> None:
        with replacing(tmp_path / "a") as temporary:
            temporary.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("a", "old")]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_no_room_is_named_with_path_and_bytes(tmp_path, number):
    def fail() -> None:
        with replacing(tmp_path / "a", size_bytes=12345):
            raise OSError(number, "no room")

    with pytest.raises(
        OutOfSpaceError, match=r"(?s)/a \(12,345 bytes needed\).*is safe; free space"
    ):
        fail()


def test_no_room_on_a_device_that_is_always_full_is_noticed():
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")

    def fail(path: Path) -> None:
        with replacing(path), Path("/dev/full").open("wb") as file:
            file.write(b"x")

    with pytest.raises(OutOfSpaceError):
        fail(Path("/tmp/never-made"))  # noqa: S108 - nothing is made there


def test_another_failure_stays_what_it_is(tmp_path):
    with pytest.raises(FileNotFoundError):
        write_atomic(tmp_path / "no such folder" / "a", b"")


def test_a_file_in_the_place_of_a_folder_is_refused(tmp_path):
    write_atomic(tmp_path / "a", b"")
    with pytest.raises(StoreError, match="cannot make the folder"):
        make_folder(tmp_path / "a" / "b")
