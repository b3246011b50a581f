import pytest

from stores.errors import SourceError
from stores.patterns import paths_of


@pytest.fixture
def folder(tmp_path):
    for name in ("a-00.tar", "a-01.tar", "a-02.tar", "sub/a-00.tar", "odd{1}.tar", ".hidden.tar"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


def names(folder, pattern):
    return [name for _path, name in paths_of(f"{folder}/{pattern}")]


def test_a_path_is_itself_even_with_braces_in_its_name(folder):
    assert names(folder, "sub/a-00.tar") == ["a-00.tar"]
    assert names(folder, "odd{1}.tar") == ["odd{1}.tar"]


def test_braces_spell_out_paths_in_order(folder):
    assert names(folder, "a-{00..02}.tar") == ["a-00.tar", "a-01.tar", "a-02.tar"]
    assert names(folder, "a-{02,00}.tar") == ["a-02.tar", "a-00.tar"]


def test_globs_match_what_is_there_sorted_without_hidden_files(folder):
    assert names(folder, "*.tar") == ["a-00.tar", "a-01.tar", "a-02.tar", "odd{1}.tar"]
    assert names(folder, "**/a-00.tar") == ["a-00.tar", "sub/a-00.tar"]


def test_equal_names_in_different_folders_differ_by_the_folder(folder):
    assert names(folder, "{sub,.}/a-0[0-1].tar") == ["sub/a-00.tar", "a-00.tar", "a-01.tar"]


def test_a_path_named_twice_is_listed_once(folder):
    assert names(folder, "{a-00,a-00}.tar") == ["a-00.tar"]


@pytest.mark.parametrize("pattern", ["a-{00..03}.tar", "b-*.tar", "nothing.tar"])
def test_what_does_not_exist_is_named(folder, pattern):
    with pytest.raises(SourceError, match="does not exist; check the path") as caught:
        paths_of(f"{folder}/{pattern}")
    assert caught.value.reason == "missing"


def test_an_open_brace_is_a_mistake(folder):
    with pytest.raises(SourceError, match="bad_source") as caught:
        paths_of(f"{folder}/a-{{00..03.tar")
    assert caught.value.reason == "bad_source"
