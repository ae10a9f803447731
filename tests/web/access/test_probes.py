"""Health probes, hosts behind proxies, cross-site requests, and kept-alive connections."""

import http.client
import re
import socket
import time
from typing import Any

import pytest

from tests.conftest import Api
from tests.servers import App

PROBES = [
    "GET /healthz HTTP/1.1\r\n\r\n",
    "GET /healthz HTTP/1.0\r\n\r\n",
    "GET /livez HTTP/1.0\r\n\r\n",
    "GET /livez HTTP/1.1\r\nHost: queue.internal.example:8080\r\n\r\n",
    "HEAD /healthz HTTP/1.0\r\n\r\n",
    "OPTIONS /healthz HTTP/1.0\r\n\r\n",
    "GET /healthz HTTP/1.1\r\nHost:\r\n\r\n",
    "GET /healthz HTTP/1.1\r\nHost: queue.internal.example:8080\r\n\r\n",
    "GET /healthz HTTP/1.1\r\nHost: an upstream/name\r\n\r\n",
    "GET /healthz HTTP/1.1\r\nHost: [::\r\n\r\n",
    "OPTIONS / HTTP/1.0\r\n\r\n",
    "OPTIONS / HTTP/1.1\r\n\r\n",
    "OPTIONS / HTTP/1.1\r\nHost: queue.internal.example\r\n\r\n",
    "OPTIONS * HTTP/1.1\r\nHost: queue.internal.example\r\n\r\n",
    "OPTIONS /api/queue/push HTTP/1.0\r\n\r\n",
]


def send(app: App, text: str) -> bytes:
    with socket.create_connection(("127.0.0.1", app.port), timeout=30) as sock:
        sock.sendall(text.encode())
        sock.shutdown(socket.SHUT_WR)
        return sock.makefile("rb").read()


@pytest.fixture(scope="session")
def guarded(valkey: Any, folder: Any) -> Any:
    app = App(folder / "guarded", REDIS_URL=valkey.url, WEB_CONCURRENCY="1", API_TOKEN="secretsecret")
    yield app
    app.end()


@pytest.mark.parametrize("probe", PROBES)
def test_a_health_probe_needs_neither_a_trusted_host_nor_the_token(guarded: App, probe: str) -> None:
    assert re.match(rb"HTTP/1\.[01] 200 ", send(guarded, probe))


@pytest.mark.parametrize("request_line", ["GET /", "GET /api/queue/count", "POST /api/queue/push", "GET /nothing"])
@pytest.mark.parametrize("host", ["", "Host: queue.internal.example\r\n"])
def test_everything_else_needs_a_trusted_host(guarded: App, request_line: str, host: str) -> None:
    assert send(guarded, f"{request_line} HTTP/1.0\r\n{host}\r\n").startswith(b"HTTP/1.0 400 ")


# --- hosts behind proxies


@pytest.mark.parametrize(
    ("host", "origin", "allowed"),
    [
        ("localhost", "http://localhost:8443", True),  # a proxy on another port that omits it from Host
        ("localhost", "https://localhost:8443", True),
        ("10.1.2.3", "http://10.1.2.3:8080", True),
        ("[::1]", "http://[::1]:8080", True),
        ("localhost.", "http://localhost.:8080", True),
        ("LOCALHOST", "http://localhost", True),
        ("localhost:443", "https://localhost", True),  # a proxy that adds the default port
        ("localhost:80", "http://localhost", True),
        ("localhost", "https://localhost:443", True),
        ("localhost:80", "https://localhost", False),
        ("localhost:5000", "http://localhost", False),
        ("localhost:5000", "http://localhost:5001", False),
        ("localhost:5000", "http://localhost:80", False),
        ("localhost", "http://evil.example", False),
        ("localhost", "http://evil.example:8080", False),
        ("localhost", "http://localhost.evil.example:8080", False),
        ("localhost", "http://localhost:8080.evil.example", False),
        ("localhost", "http://localhost:8080@evil.example", False),
        ("localhost", "http://evil.example/localhost:8080", False),
        ("localhost", "ftp://localhost", False),
        ("localhost", "chrome-extension://localhost", False),
        ("localhost", "localhost", False),
        ("localhost", "null", False),
        ("localhost", "", False),
    ],
)
def test_the_origin_is_compared_with_the_host_as_proxies_send_it(
    api: Api, host: str, origin: str, allowed: bool
) -> None:
    answer = api.post("push", json={"message": "a"}, headers={"Host": host, "Origin": origin})
    assert answer.status_code == (200 if allowed else 403)
    assert len(api.messages()) == allowed


@pytest.mark.parametrize(("port", "allowed"), [(80, False), (443, False), (5000, True)])
def test_if_the_app_listens_on_a_default_port_a_host_without_port_is_exact(api: Api, port: int, allowed: bool) -> None:
    headers = {"Host": "localhost", "Origin": "http://localhost:8080"}
    answer = api.with_settings(port=port).post("push", json={"message": "a"}, headers=headers)
    assert answer.status_code == (200 if allowed else 403)


# --- pages of other sites


FETCH = {"Sec-Fetch-Mode": "cors", "Sec-Fetch-Dest": "empty"}
LINK = {"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}


@pytest.mark.parametrize("site", ["cross-site", "same-site", "nonsense"])
@pytest.mark.parametrize("path", ["all", "events"])
@pytest.mark.parametrize(
    "headers",
    [
        {},
        FETCH,
        {"Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "image"},
        {"Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "script"},
        {"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "iframe"},
        {"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "object"},
        {"Sec-Fetch-Mode": "websocket", "Sec-Fetch-Dest": "websocket"},
    ],
    ids=str,
)
def test_a_page_of_another_site_cannot_even_read(api: Api, site: str, path: str, headers: dict[str, str]) -> None:
    answer = api.get(path, headers={"Sec-Fetch-Site": site, **headers})
    assert (answer.status_code, answer.json["error"]) == (403, "cross_site")


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://localhost:5001"])
def test_a_foreign_origin_alone_is_refused_too(api: Api, origin: str) -> None:
    answer = api.get("all", headers={"Host": "localhost:5000", "Origin": origin})
    assert (answer.status_code, answer.json["error"]) == (403, "cross_site")


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Sec-Fetch-Site": "cross-site", **LINK},
        {"Sec-Fetch-Site": "same-site", **LINK},
        {"Sec-Fetch-Site": "same-origin", **FETCH},
        {"Sec-Fetch-Site": "none", **LINK},
        {"Host": "localhost:5000", "Origin": "http://localhost:5000"},
    ],
    ids=str,
)
def test_links_programs_and_our_own_page_are_allowed_to_read(api: Api, headers: dict[str, str]) -> None:
    assert api.get("all", headers=headers).status_code == 200
    assert api.http.get("/", headers=headers).status_code == 200


def test_a_link_of_another_site_changes_nothing(api: Api) -> None:
    assert api.post("push", json={"message": "a"}, headers={"Sec-Fetch-Site": "cross-site", **LINK}).status_code == 403
    assert api.messages() == []


# --- connections kept alive


@pytest.mark.soak
@pytest.mark.slow
def test_an_idle_connection_outlives_the_timeout_of_a_load_balancer(site: App) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", site.port, timeout=30)
    connection.request("GET", "/healthz")
    assert connection.getresponse().read()
    first = connection.sock
    time.sleep(63)  # nothing to wait for: the point is that nothing happens
    connection.request("GET", "/healthz")
    assert connection.getresponse().status == 200
    assert connection.sock is first
    connection.close()
