from stores.errors import ObjectStoreError, OutOfSpaceError
from stores.reach import explained


class _AnswerError(Exception):
    def __init__(self, code: str) -> None:
        self.response = {"Error": {"Code": code}}


def test_what_s3_and_its_like_answer_is_understood():
    url = "s3://bucket/a"
    assert isinstance(explained(url, _AnswerError("XMinioStorageFull")), OutOfSpaceError)
    assert isinstance(explained(url, _AnswerError("ConditionalRequestConflict")), FileExistsError)
    assert isinstance(explained(url, _AnswerError("InternalError")), ObjectStoreError)
