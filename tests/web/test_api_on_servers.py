"""The whole API under gunicorn with two workers, on Valkey and on Redis."""

import http.client
import json
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.servers import App, Store, running
from tests.web.helpers import EMPTY, JSON, NO_OTHERS


@pytest.fixture(scope="module")
def redis_site(redis7: Store, folder: Path) -> Iterator[App]:
    """The app with two workers on Debian's redis-server."""
    with running(App(folder / "redis-site", REDIS_URL=redis7.url)) as app:
        yield app


@pytest.fixture(params=["site", "redis_site"])
def server(request: pytest.FixtureRequest) -> App:
    """The app with two workers, on each kind of store in turn."""
    found: App = request.getfixturevalue(request.param)
    return found


def call(server: App, path: str, fields: dict[str, Any] | None = None, key: str = "") -> tuple[int, Any]:
    """Ask over a connection of its own, so that any worker may answer."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    headers = {"Content-Type": JSON} | ({"Idempotency-Key": key} if key else {})
    body = None if fields is None else json.dumps(fields)
    connection.request("GET" if fields is None else "POST", path, body, headers)
    response = connection.getresponse()
    found = response.status, json.loads(response.read())
    connection.close()
    return found


def test_every_operation_works_on_real_servers(server: App, name: str) -> None:
    def post(operation: str, **fields: Any) -> Any:
        status, answer = call(server, f"/api/queue/{name}/{operation}", fields)
        assert (status, answer.pop("success")) == (200, True), answer
        return answer

    def get(operation: str) -> Any:
        status, answer = call(server, f"/api/queue/{name}/{operation}")
        assert (status, answer.pop("success")) == (200, True), answer
        return answer

    assert post("push", message="a") == {"message": "a", "count": 1}
    assert post("push", messages=["b", "c", "d", "e"]) == {"pushed": 4, "count": 5}
    assert get("count") == {"count": 5, "message": "5", **NO_OTHERS}
    assert get("all?offset=1&limit=1&preview=1") == {"messages": [{"preview": "b", "bytes": 1}], "count": 5}
    assert post("pop") == {"message": "a"}
    assert post("pop", max=1) == {"messages": ["b"]}
    first = post("reserve", lease=60, by="worker")
    assert (first["message"], first["deliveries"]) == ("c", 1)
    [consumer] = get("consumers")["consumers"]
    assert (consumer["by"], consumer["reserved"], consumer["waiting"]) == ("worker", 1, 0)
    assert post("extend", id=first["id"], lease=100)["deadline"] > first["deadline"]
    assert post("ack", id=first["id"]) == {"acked": 1}
    second = post("reserve", max=5, wait=1)["messages"]
    assert [one["message"] for one in second] == ["d", "e"]
    assert post("release", ids=[one["id"] for one in second]) == {"released": 2, "dead": 0}
    assert post("remove", position=1, message="e") == {"message": "e"}
    cleared = post("clear")
    assert cleared["cleared"] == 1
    assert post("restore", undo=cleared["undo"]) == {"restored": 1}
    assert post("move", to=name + "x", max=10)["moved"] == 1
    popped = {"success": True, "message": "d", "queue": name + "x"}
    assert call(server, f"/api/queue/{name}-,{name}x,{name}/pop", {"wait": 1}) == (200, popped)
    assert call(server, f"/api/queue/{name}/pop", {}) == (200, EMPTY)
    assert call(server, f"/api/queue/{name}/ack", {"id": second[0]["id"]})[0] == 409


def test_one_key_works_across_the_workers_at_the_same_time(server: App, name: str) -> None:
    with ThreadPoolExecutor(8) as pool:
        body = {"message": "a"}
        answers = list(pool.map(lambda _: call(server, f"/api/queue/{name}/push", body, "push"), range(40)))
        assert answers == [(200, {"success": True, "message": "a", "count": 1})] * 40
        assert call(server, f"/api/queue/{name}/count")[1]["count"] == 1
        answers = list(pool.map(lambda _: call(server, f"/api/queue/{name}/pop", {}, "pop"), range(40)))
        assert answers == [(200, {"success": True, "message": "a"})] * 40
        assert call(server, f"/api/queue/{name}/pop", {}) == (200, EMPTY)


@pytest.mark.parametrize(
    ("option", "text", "stored"),
    [
        ("-d", "C++", "C  "),
        ("-d", "+55 11", " 55 11"),
        ("-d", "fish and chips", "fish and chips"),
        *(("--data-urlencode", text, text) for text in ("C++", "+55 11", "timed out", "100%20 é", "a:\n    b")),
    ],
)
def test_curl_is_warned_if_decoding_changed_what_it_did_not_escape(
    site: App, name: str, option: str, text: str, stored: str
) -> None:
    command = ["curl", "-s", f"{site.url}/api/queue/{name}/push", option, f"message={text}"]
    answer = json.loads(subprocess.run(command, check=True, capture_output=True, timeout=30).stdout)
    assert (answer["message"], "warning" in answer) == (stored, stored != text)
