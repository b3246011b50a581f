import pickle

import pytest

from stores import errors


@pytest.mark.parametrize(
    "error",
    [
        errors.SourceError("unreadable", "a.png: check permissions"),
        errors.KeyCollisionError("two files, one key"),
        errors.KeyNotFoundError("no such key"),
        errors.OutOfSpaceError("no room"),
    ],
)
def test_errors_cross_process_borders_with_their_message(error):
    copy = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own bytes
    assert type(copy) is type(error)
    assert str(copy) == str(error)
    assert isinstance(copy, errors.StoreError)
    assert isinstance(copy, ValueError)


def test_a_source_error_has_a_reason_for_tables_and_a_detail_for_people():
    error = errors.KeyCollisionError("two files, one key")
    assert (error.reason, error.detail) == ("key_collision", "two files, one key")
