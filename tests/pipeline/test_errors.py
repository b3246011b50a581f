import pickle

import pytest

from pipeline import errors


def test_every_error_is_a_pipeline_error_and_a_value_error():
    found = [e for e in vars(errors).values() if isinstance(e, type)]
    assert len(found) == 8
    assert all(issubclass(e, (errors.PipelineError, ValueError)) for e in found)
    assert all(e.__name__ in (errors.__doc__ or "") for e in found)


def test_an_image_error_comes_back_whole_from_a_worker_process():
    sent = pickle.dumps(errors.ImageError("truncated", "ends after 12 bytes"))
    error = pickle.loads(sent)  # noqa: S301 - our own bytes, as multiprocessing does it
    assert (error.reason, error.detail) == ("truncated", "ends after 12 bytes")
    assert str(error) == "truncated: ends after 12 bytes"
    with pytest.raises(ValueError, match="truncated"):
        raise error
