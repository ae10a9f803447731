"""Malformed requests: what the log and the answers make of them."""

import contextlib
import re
from collections.abc import Callable

import pytest

from server.bad_requests import STATUSES
from tests.server.test_http import NAME, PATH, Wire, head, push
from tests.servers import App, Store
from web.errors import ERRORS

SECRET = "s3cr3t-token"
LONG = f"Bearer {SECRET}" + "x" * 7000
LEAKY = [
    f"GET\t{LONG}\r\n\r\n".encode(),
    f"{LONG} / HTTP/1.1\r\n\r\n".encode(),
    f"GET / {LONG}\r\n\r\n".encode(),
    f"GET / HTTP/9.9{SECRET}\r\n\r\n".encode(),
    *[
        push(NAME, "Content-Length: 9", line) + b"message=a"
        for line in (
            f"Authorization {LONG}",
            f"Authoriz ation: {LONG}",
            f" {LONG}",
            f"Authorization: {LONG}\0",
            f"Expect: {LONG}",
            f"Transfer-Encoding: {LONG}",
        )
    ],
    push(NAME, f"Content-Length: {SECRET}"),
    push(NAME, "Transfer-Encoding: chunked") + f"{SECRET}\r\n".encode(),
    head(f"{PATH}/count", f"Content-Length: {SECRET}", method="GET"),
    head(f"{PATH}/count", method="GET", host=SECRET),
    head(f"{PATH}/count", method="GET", host=f"{LONG}"),
    f"PRI * HTTP/2.0{SECRET}\r\n\r\nSM\r\n\r\n".encode(),
]


@pytest.mark.slow
def test_malformed_requests_neither_fill_the_log_nor_are_repeated(serve: Callable[..., App], valkey: Store) -> None:
    """In the log a line of its own is left for the 1st, 2nd, 4th, 8th ... of a kind."""
    times = 33
    site = serve(REDIS_URL=valkey.url, WEB_CONCURRENCY="1")
    for data in LEAKY * times:
        wire = Wire(site)
        with wire.sock, contextlib.suppress(ConnectionError):
            wire.send(data).half_close()
            answer = wire.rest()
            assert answer.startswith(b"HTTP/1.1 4") and SECRET.encode() not in answer, (data[:80], answer)
    log = site.log.read_text()
    assert SECRET not in log and "Traceback" not in log
    assert re.search(r"Malformed request from 127\.0\.0\.1 \(InvalidHeader\): 32 lately", log)
    assert log.count("Malformed request") < len(LEAKY) * times / 4
    assert max(map(len, log.splitlines())) < 300


def test_what_gunicorn_refuses_is_in_the_table_of_errors() -> None:
    for _, status, reason, sentence in STATUSES:
        row = ERRORS[reason.lower().replace(" ", "_")]
        assert (row.status, row.sentence) == (status, sentence)
