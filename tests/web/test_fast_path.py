"""The path of a request past Flask."""

import gc
import io
from wsgiref.util import setup_testing_defaults

import pytest
from fakeredis import FakeRedis

from app import create_app
from settings import Settings
from tests.web.helpers import FORM

REQUESTS = 50


@pytest.mark.parametrize("body", [b"message=a", b"unknown=a"])
def test_a_request_is_freed_when_it_ends(body: bytes) -> None:
    """If only the garbage collector could free it, a worker under attack would need hundreds of MiB more."""
    app = create_app(Settings(), FakeRedis())

    def push() -> None:
        environ = {"REQUEST_METHOD": "POST", "PATH_INFO": "/api/queue/push", "CONTENT_LENGTH": str(len(body))}
        environ |= {"CONTENT_TYPE": FORM, "wsgi.input": io.BytesIO(body)}  # type: ignore[dict-item]
        setup_testing_defaults(environ)
        b"".join(app.wsgi_app(environ, lambda *_: lambda _: None))

    push()
    gc.collect()
    gc.disable()
    try:
        for _ in range(REQUESTS):
            push()
        assert gc.collect() < REQUESTS
    finally:
        gc.enable()
