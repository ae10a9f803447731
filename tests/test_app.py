"""The app as it is put together: its answers, its 404 page, and that importing it starts nothing."""

import subprocess
import sys

import pytest

from tests.conftest import Api
from tests.servers import ROOT


@pytest.mark.parametrize("path", ["/nothing", "/apix", "/static/nothing.js", "/static/../app.py", "/favicon.nothing"])
def test_any_other_unknown_path_is_the_404_page(api: Api, path: str) -> None:
    answer = api.http.get(path)
    assert (answer.status_code, answer.mimetype) == (404, "text/html")
    assert 'href="/"' in answer.text


def test_the_404_page_shows_a_path_as_text(api: Api) -> None:
    assert "<script>" not in api.http.get("/<script>alert(1)</script>").text.split("</head>")[-1]


def test_answers_are_json_lines_that_are_not_cached(api: Api) -> None:
    answer = api.post("push", json={"message": "ž"})
    assert answer.content_type == "application/json"
    assert answer.data == '{"success":true,"message":"ž","count":1}\n'.encode()
    assert answer.headers["Cache-Control"] == "no-store"


def test_importing_the_app_opens_no_connection_and_starts_nothing() -> None:
    code = (
        "import socket, subprocess, threading\n"
        "def no(*a, **k): raise AssertionError('started something')\n"
        "socket.socket.connect = subprocess.Popen.__init__ = threading.Thread.start = no\n"
        "import app, RedisQueue\n"
        "assert app.app.name\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
