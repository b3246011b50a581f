import pytest

from stores.errors import ManifestError
from stores.records import (
    Input,
    Reject,
    inputs_to_bytes,
    read_inputs,
    read_rejects,
    rejects_to_bytes,
)

KEYS = ["a", "ü/線.png", "line\nbreak\u2028\x85", '"quoted"', "x" * 500, "../up"]


def test_lists_survive_their_files_one_line_an_input(tmp_path):
    inputs = [Input(key, 5, 10**18 + 1) for key in KEYS]
    rejects = [Reject(key, "truncated", f"about {key}") for key in KEYS]
    (tmp_path / "i").write_bytes(inputs_to_bytes(inputs))
    (tmp_path / "r").write_bytes(rejects_to_bytes(rejects))
    assert read_inputs(tmp_path / "i") == inputs
    assert read_rejects(tmp_path / "r") == rejects
    assert len((tmp_path / "i").read_bytes().splitlines()) == len(KEYS)


def test_no_file_of_rejects_is_no_rejects(tmp_path):
    assert read_rejects(tmp_path / "r") == []


@pytest.mark.parametrize("line", ["{", "[]", '{"key": "a"}'])
def test_a_damaged_line_is_named(tmp_path, line):
    (tmp_path / "i").write_text(f'{{"key": "a", "size_bytes": 1, "mtime_ns": 2}}\n{line}\n')
    with pytest.raises(ManifestError, match=r"/i, line 2"):
        read_inputs(tmp_path / "i")


def test_a_missing_list_of_inputs_is_an_error(tmp_path):
    with pytest.raises(ManifestError, match="is missing"):
        read_inputs(tmp_path / "i")
