"""A local S3 for the tests of stores on object stores."""

import importlib.util
import io
import os
import secrets
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

Hook = Callable[[dict[str, Any]], str | None]
"""Sees a request (WSGI); may answer it with an error: `507 QuotaExceeded`."""


class S3Server:
    """An S3 in this process; every request passes a hook first: to look, wait, kill or refuse."""

    def __init__(self) -> None:
        from moto.server import DomainDispatcherApplication, create_backend_app
        from werkzeug.serving import make_server

        self._app = DomainDispatcherApplication(create_backend_app)
        self._server = make_server("127.0.0.1", 0, self._answer, threaded=True)
        self._server.log_startup = lambda: None
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        self.hook: Hook | None = None
        self.env = {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self._server.server_port}",
            "AWS_ACCESS_KEY_ID": "tests",
            "AWS_SECRET_ACCESS_KEY": "tests",
            "AWS_DEFAULT_REGION": "us-east-1",
        }

    def stop(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def new_bucket(self) -> str:
        import fsspec

        bucket = f"tests-{secrets.token_hex(6)}"
        fsspec.filesystem("s3").mkdir(bucket)
        return bucket

    @staticmethod
    def read_half(environ: dict[str, Any]) -> int:
        """Wait for half of a request's body, and leave the whole to be read."""
        half = environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]) // 2)
        environ["wsgi.input"] = io.BufferedReader(_Chained(half, environ["wsgi.input"]))
        return len(half)

    def _answer(self, environ: dict[str, Any], start_response: Callable) -> Any:
        error = self.hook(environ) if self.hook is not None else None
        if error is None:
            return self._app(environ, start_response)
        status, code = error.split()
        start_response(f"{status} {code}", [("Content-Type", "application/xml")])
        return [f"<Error><Code>{code}</Code><Message>{code}</Message></Error>".encode()]


class _Chained(io.RawIOBase):
    def __init__(self, head: bytes, rest: io.RawIOBase) -> None:
        self._head, self._rest = io.BytesIO(head), rest

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        data = self._head.read(len(buffer)) or self._rest.read(len(buffer)) or b""
        buffer[: len(data)] = data
        return len(data)


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3Server]:
    """A local S3 that this process and its children find through their environment."""
    for name in ("moto", "s3fs"):
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"{name} is not installed")
    server = S3Server()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in server.env.items():
            patch.setenv(name, value)
        patch.delenv("AWS_PROFILE", raising=False)
        patch.setenv("AWS_CONFIG_FILE", os.devnull)
        patch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
        yield server
    server.stop()


@pytest.fixture
def s3(s3_server: S3Server) -> Iterator[S3Server]:
    """The same server, without a hook before and after."""
    yield s3_server
    s3_server.hook = None
