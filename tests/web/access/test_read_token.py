"""READ_TOKEN, several tokens of each kind, and their rotation."""

import http.client
import os
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient

from settings import BadSetting, Settings, read
from tests.conftest import AppOn
from tests.servers import App, FakeRedis, Store, until
from tests.web.access.test_token import cookie_of, sign_in
from web.api import OPERATIONS

WRITE, OTHER, READ = "the-first-token", "the-second-token", "a-token-that-reads"
SETTINGS = Settings(api_tokens=(WRITE.encode(), OTHER.encode()), read_tokens=(READ.encode(),))


@pytest.fixture
def client(app_on: AppOn) -> FlaskClient:
    return app_on(SETTINGS, FakeRedis()).test_client()


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


@pytest.mark.parametrize("token", [WRITE, OTHER])
def test_each_of_several_tokens_is_valid(client: FlaskClient, token: str) -> None:
    assert client.post("/api/queue/push", data={"message": "a"}, headers=bearer(token)).status_code == 200
    assert sign_in(client, token).status_code == 303
    assert client.get("/").status_code == 200


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.id)
def test_a_token_for_reading_reads_and_changes_nothing(client: FlaskClient, operation: Any) -> None:
    client.post("/api/queue/push", data={"message": "a"}, headers=bearer(WRITE))
    answer = client.open(operation.paths[0], method=operation.method, headers=bearer(READ), data=None)
    if operation.method == "GET":
        assert answer.status_code != 403
    else:
        assert (answer.status_code, answer.get_json()["error"]) == (403, "read_only")
        assert answer.get_json()["success"] is False
    assert client.get("/api/queue/all", headers=bearer(READ)).get_json()["messages"] == ["a"]


@pytest.mark.parametrize("path", ["/", "/q/jobs", "/api/queues", "/metrics", "/api/queue/jobs/count"])
def test_a_token_for_reading_can_read_everything(client: FlaskClient, path: str) -> None:
    for method in ("GET", "HEAD"):
        assert client.open(path, method=method, headers=bearer(READ)).status_code == 200


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH"])
def test_other_methods_are_no_way_around(client: FlaskClient, method: str) -> None:
    assert client.open("/api/queue/push", method=method, headers=bearer(READ)).status_code in (403, 405)


def test_a_read_only_page_has_no_operations(client: FlaskClient) -> None:
    assert '"can_write":true' in client.get("/", headers=bearer(WRITE)).text
    assert "<body>" in client.get("/", headers=bearer(WRITE)).text
    assert '"can_write":false' in client.get("/", headers=bearer(READ)).text
    assert '<body class="read-only">' in client.get("/", headers=bearer(READ)).text


def test_a_session_has_the_access_of_its_token(client: FlaskClient) -> None:
    sign_in(client, READ)
    assert client.get("/").status_code == 200
    assert client.post("/api/queue/push", data={"message": "a"}).get_json()["error"] == "read_only"
    assert client.post("/api/queue/push", data={"message": "a"}, headers=bearer(WRITE)).status_code == 200
    assert client.post("/logout").status_code == 303
    assert client.get("/").status_code == 401


def test_without_an_api_token_nobody_can_write(app_on: AppOn) -> None:
    client = app_on(Settings(read_tokens=(READ.encode(),)), FakeRedis()).test_client()
    assert client.post("/api/queue/push", data={"message": "a"}).status_code == 401
    assert client.post("/api/queue/push", data={"message": "a"}, headers=bearer(READ)).status_code == 403


def test_a_session_ends_with_its_own_token(app_on: AppOn, client: FlaskClient) -> None:
    signed = sign_in(client, WRITE)
    name, value = re.match(r"(\w+)=([^;]+)", cookie_of(signed)).groups()  # type: ignore[union-attr]
    kept = app_on(Settings(api_tokens=(b"a-new-token", WRITE.encode())), FakeRedis()).test_client()
    rotated_out = app_on(Settings(api_tokens=(b"a-new-token",)), FakeRedis()).test_client()
    only_reads = app_on(
        Settings(api_tokens=(b"a-new-token",), read_tokens=(WRITE.encode(),)), FakeRedis()
    ).test_client()
    for one, status in ((kept, 200), (rotated_out, 401), (only_reads, 403)):
        one.set_cookie(name, value)
        assert one.post("/api/queue/push", data={"message": "a"}).status_code == status


def test_tokens_are_separated_by_commas_or_lines(tmp_path: Path) -> None:
    file = tmp_path / "tokens"
    file.write_text("the-first-token\n\n the-second-token ,the-third-token\n")
    three = (b"the-first-token", b"the-second-token", b"the-third-token")
    assert read({"API_TOKEN_FILE": str(file)}).api_tokens == three
    assert read({"READ_TOKEN_FILE": str(file)}).read_tokens == three
    assert read({"READ_TOKEN": "the-first-token, the-second-token"}).read_tokens == three[:2]


@pytest.mark.parametrize(
    "env",
    [
        {"READ_TOKEN": "short"},
        {"API_TOKEN": "the-first-token,short"},
        {"API_TOKEN": ","},
        {"READ_TOKEN_FILE": "/dev/null"},
        {"READ_TOKEN": "the-first-token", "API_TOKEN": "the-second-token,the-first-token"},
    ],
)
def test_bad_tokens_are_refused_without_being_shown(env: dict[str, str]) -> None:
    with pytest.raises(BadSetting) as caught:
        read(env)
    assert "TOKEN" in str(caught.value) and "the-first" not in str(caught.value)


# --- rotation, on a running server


def status(app: App, token: str, cookie: str = "") -> int:
    connection = http.client.HTTPConnection("127.0.0.1", app.port, timeout=20)
    try:
        connection.request("GET", "/api/queue/count", headers={**bearer(token), "Cookie": cookie})
        return connection.getresponse().status
    finally:
        connection.close()


def reload(app: App) -> None:
    """Send SIGHUP and wait until all workers are new."""
    before = set(app.workers())
    os.kill(app.process.pid, signal.SIGHUP)
    until(lambda: len(app.workers()) == 2 and not before & set(app.workers()))


@pytest.mark.slow
def test_tokens_are_rotated_by_a_reload(serve: Callable[..., App], valkey: Store, tmp_path: Path) -> None:
    file = tmp_path / "tokens"
    file.write_text(WRITE)
    app = serve(REDIS_URL=valkey.url, API_TOKEN_FILE=str(file))
    connection = http.client.HTTPConnection("127.0.0.1", app.port, timeout=20)
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    connection.request("POST", "/login", f"token={WRITE}", form)
    session = str(connection.getresponse().headers["Set-Cookie"]).partition(";")[0]
    connection.close()
    assert status(app, "", session) == 200
    file.write_text(f"{WRITE}\n{OTHER}\n")
    assert status(app, OTHER) == 401
    reload(app)
    assert (status(app, WRITE), status(app, OTHER), status(app, "", session)) == (200, 200, 200)
    file.write_text(OTHER)
    reload(app)
    assert (status(app, WRITE), status(app, OTHER), status(app, "", session)) == (401, 200, 401)


@pytest.mark.slow
def test_a_reload_with_bad_settings_changes_nothing(serve: Callable[..., App], valkey: Store, tmp_path: Path) -> None:
    file = tmp_path / "tokens"
    file.write_text(WRITE)
    app = serve(REDIS_URL=valkey.url, API_TOKEN_FILE=str(file))
    before = app.workers()
    file.write_text("short")
    os.kill(app.process.pid, signal.SIGHUP)
    until(lambda: "Not reloaded: API_TOKEN_FILE must be" in app.log.read_text())
    assert status(app, WRITE) == 200
    assert sorted(app.workers()) == sorted(before)
