"""LOG_REQUESTS, and the reason of every 5xx in the log."""

import json
import logging
from collections.abc import Callable
from typing import Any

import pytest

from settings import Settings
from tests.conftest import Api, AppOn
from tests.servers import App, FakeRedis, Store, until
from tests.web.metrics.test_metrics import pushes
from web.log_limit import LogLimit

SECRETS = ("s3cr3t-token", "s3cr3t-cookie", "s3cr3t-body", "s3cr3t-query")


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines() if line.startswith("{")]


@pytest.fixture
def logged(app_on: AppOn, capfd: pytest.CaptureFixture[str]) -> Callable[..., dict[str, Any]]:
    """Make a request of an app that logs requests, and return its line."""
    client = app_on(Settings(log_requests=True, api_tokens=(b"s3cr3t-token",)), FakeRedis()).test_client()

    def ask(method: str, path: str, **request: Any) -> dict[str, Any]:
        headers = {"Authorization": "Bearer s3cr3t-token", "Cookie": "session=s3cr3t-cookie"}
        client.open(path, method=method, headers=headers, **request)
        found = capfd.readouterr()
        assert not any(secret in found.out + found.err for secret in SECRETS)
        [line] = lines(found.out)
        return line

    return ask


def test_a_request_is_one_line_without_secrets(logged: Callable[..., dict[str, Any]]) -> None:
    line = logged("POST", "/api/queue/jobs/push?x=s3cr3t-query", data={"message": "s3cr3t-body"})
    assert list(line) == ["time", "method", "path", "status", "seconds", "queue", "client"]
    assert (line["method"], line["path"], line["status"]) == ("POST", "/api/queue/jobs/push", 400)
    assert (line["queue"], line["client"]) == ("jobs", "127.0.0.1")
    assert 0 < line["seconds"] < 60


@pytest.mark.parametrize(
    ("method", "path", "status", "queue"),
    [
        ("POST", "/api/queue/push", 200, "default"),
        ("GET", "/", 200, ""),
        ("GET", "/no/such", 404, ""),
        ("GET", "/static/icon.svg", 200, ""),
        ("GET", "/api/queue/pop", 405, ""),
        ("GET", "/a\nb", 404, ""),
        ("GET", "/" + "x" * 5000, 404, ""),
    ],
)
def test_every_kind_of_request_is_logged(
    logged: Callable[..., dict[str, Any]], method: str, path: str, status: int, queue: str
) -> None:
    line = logged(method, path, data={"message": "s3cr3t-body"} if method == "POST" else None)
    assert (line["status"], line["queue"]) == (status, queue)
    assert len(line["path"]) <= 300


def test_nothing_is_logged_by_default(named_api: Api, capsys: pytest.CaptureFixture[str]) -> None:
    named_api.post("push", json={"message": "a"})
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("path", ["/api/queue/x/count", "/healthz"])
def test_the_reason_of_a_5xx_is_logged(app_on: AppOn, caplog: pytest.LogCaptureFixture, path: str) -> None:
    client = app_on(Settings(redis_url="redis://:s3cr3t@127.0.0.1:1/0?db=0"), None).test_client()
    assert client.get(path).status_code == 503
    reason = "Cannot reach Redis at 127.0.0.1:1 (connection refused). Nothing was changed. [redis://127.0.0.1:1/0]"
    assert f"503 redis_unavailable: GET '{path}': {reason}" in caplog.messages


def test_a_flood_of_5xx_does_not_fill_the_log(app_on: AppOn, caplog: pytest.LogCaptureFixture) -> None:
    now = [0.0]
    app = app_on(Settings(redis_url="redis://127.0.0.1:1/0"), None)
    app.extensions["queue"].log_limit = LogLimit(lambda: now[0])
    for _ in range(50):
        app.test_client().get("/api/queue/count")
    assert len(caplog.messages) == 1
    now[0] += 1
    app.test_client().get("/api/queue/count")
    assert len(caplog.messages) == 2 and caplog.messages[-1].endswith("(and 49 more like it before)")


def test_errors_of_the_client_are_not_logged(named_api: Api, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    named_api.post("push", json={"message": ""})
    named_api.http.get("/no/such")
    assert caplog.messages == []


@pytest.mark.slow
def test_lines_of_several_processes_stay_whole(serve: Callable[..., App], valkey: Store, name: str) -> None:
    app = serve(REDIS_URL=valkey.url, LOG_REQUESTS="1")
    pushes(app, name, 50)
    found = until(lambda: (seen := lines(app.log.read_text())) and len(seen) >= 50 and seen)
    assert sum(line["queue"] == name and line["status"] == 200 for line in found) == 50
