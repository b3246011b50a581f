import pytest

from flows.steps.avatars import ATTRIBUTES, read_attributes, write_avatars
from pipeline.errors import PipelineError


def write(out, count):
    return write_avatars(out, count=count, seed=3, num_workers=1)


def test_an_avatar_of_a_seed_is_the_same_whatever_the_count(tmp_path):
    write(tmp_path / "few", 2)
    write(tmp_path / "more", 3)
    names = ["avatar-000000.png", "avatar-000001.png"]
    few, more = ([(tmp_path / part / n).read_bytes() for n in names] for part in ("few", "more"))
    assert few == more
    assert list(read_attributes(tmp_path / "few" / ATTRIBUTES)) == names


def test_a_folder_with_other_pictures_is_refused(tmp_path):
    write(tmp_path, 3)
    with pytest.raises(PipelineError, match=r"such as avatar-000002\.png; give a new folder"):
        write(tmp_path, 2)
