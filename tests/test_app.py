"""The app as a whole: its answers, its 404 page, and an import that starts nothing."""

import subprocess
import sys

import pytest

from tests.conftest import Api
from tests.servers import ROOT


@pytest.mark.parametrize("path", ["/nothing", "/apix", "/static/nothing.js", "/static/../app.py", "/favicon.nothing"])
def test_an_unknown_path_is_the_404_page(api: Api, path: str) -> None:
    answer = api.http.get(path)
    assert (answer.status_code, answer.mimetype) == (404, "text/html")
    assert 'href="/"' in answer.text


def test_the_404_page_escapes_the_path(api: Api) -> None:
    assert "<script>" not in api.http.get("/<script>alert(1)</script>").text.split("</head>")[-1]


@pytest.mark.parametrize("path", ["/", "/q/jobs", "/queues", "/api/docs", "/nothing"])
def test_the_label_is_in_the_bar_and_the_title_of_every_page(api: Api, path: str) -> None:
    page = api.with_settings(label="<staging>").http.get(path).text
    assert " – &lt;staging&gt;</title>" in page and '<span id="label">&lt;staging&gt;</span>' in page
    assert 'id="label"' not in api.http.get(path).text


def test_an_answer_is_a_line_of_json_that_is_not_cached(api: Api) -> None:
    answer = api.post("push", json={"message": "ž"})
    assert answer.content_type == "application/json"
    assert answer.data == '{"success":true,"message":"ž","count":1}\n'.encode()
    assert answer.headers["Cache-Control"] == "no-store"


@pytest.mark.slow
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
