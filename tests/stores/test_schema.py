import numpy as np
import pytest

from stores.errors import SchemaMismatchError
from stores.schema import Column, Schema

SCHEMA = Schema((Column("clip", (4,), "float32"), Column("w_plus", (2, 3), "float16")))


def _rows(num_rows: int = 2) -> dict[str, np.ndarray]:
    return {
        "clip": np.zeros((num_rows, 4), "float32"),
        "w_plus": np.zeros((num_rows, 2, 3), "float16"),
    }


def test_rows_that_fit_are_counted():
    assert SCHEMA.check(_rows(3)) == 3
    assert SCHEMA.row_bytes == 16 + 12


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"clip": np.zeros((2, 5), "float32")}, r"clip: expected \[N, 4\] float32, got \[2, 5\]"),
        ({"clip": np.zeros((2, 4), "float64")}, "got .* float64"),
        ({"clip": np.zeros((3, 4), "float32")}, r"different lengths: \[2, 3\]"),
        ({"extra": np.zeros((2, 4), "float32")}, "extra: not in the schema"),
    ],
)
def test_rows_that_do_not_fit_are_refused_with_what_was_expected(change, said):
    with pytest.raises(SchemaMismatchError, match=said):
        SCHEMA.check(_rows() | change)


def test_all_faults_are_named_at_once():
    with pytest.raises(SchemaMismatchError, match=r"(?s)clip: missing.*w_plus: missing"):
        SCHEMA.check({})


def test_a_schema_survives_json():
    assert Schema.from_json(SCHEMA.to_json()) == SCHEMA


@pytest.mark.parametrize(
    "column",
    [("key", (4,), "float32"), ("a b", (4,), "float32"), ("a", (0,), "float32"), ("a", (4,), "S3")],
)
def test_columns_that_cannot_be_stored_are_refused(column):
    with pytest.raises(SchemaMismatchError):
        Column(*column)


def test_two_columns_of_one_name_are_refused():
    with pytest.raises(SchemaMismatchError, match="different names"):
        Schema((Column("a", (1,), "int32"), Column("a", (2,), "int32")))


def test_an_unknown_column_is_refused_with_those_there_are():
    with pytest.raises(SchemaMismatchError, match="this store has clip, w_plus"):
        SCHEMA["s"]
