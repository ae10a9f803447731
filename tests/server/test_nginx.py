"""The app behind a real nginx with deploy/nginx.conf: TLS, HTTP/2, a sub-path, several instances."""

import contextlib
import http.client
import json
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.servers import ROOT, App, Store, free_port, running, until

TOKEN = "correct-horse-battery"
HEADERS = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/x-www-form-urlencoded"}
OUTSIDE = """
daemon off; pid {folder}/nginx.pid; error_log {folder}/error.log; worker_processes 1;
events {{ worker_connections 512; }}
http {{
    access_log off;
    client_body_temp_path {folder}/a; proxy_temp_path {folder}/b; fastcgi_temp_path {folder}/c;
    uwsgi_temp_path {folder}/d; scgi_temp_path {folder}/e;
    {inside}
}}
"""
STRIPPING = "location /stripped/ { proxy_pass http://queue/; proxy_set_header Host $http_host; }"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.xdist_group("nginx"),
    pytest.mark.skipif(not shutil.which("nginx") and not os.environ.get("CI"), reason="nginx is not installed"),
]


class Nginx:
    """nginx with the configuration of deploy/, in front of some instances of the app."""

    def __init__(self, folder: Path, apps: list[App]) -> None:
        folder.mkdir()
        self.port = free_port()
        certificate = f"openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=x -keyout {folder}/key.pem"
        subprocess.run([*certificate.split(), "-out", f"{folder}/cert.pem"], check=True, capture_output=True)
        inside = (ROOT / "deploy/nginx.conf").read_text()
        for old, new in {
            r"server 127\.0\.0\.1:5000;": " ".join(f"server 127.0.0.1:{app.port};" for app in apps),
            r"listen 443": f"listen 127.0.0.1:{self.port}",
            r"/etc/ssl/certs/queue\.pem": str(folder / "cert.pem"),
            r"/etc/ssl/private/queue\.key": str(folder / "key.pem"),
            r"\n    location /queue": f"\n    {STRIPPING}\n    location /queue",
        }.items():
            inside, number = re.subn(old, new, inside)
            assert number == 1, old
        (folder / "nginx.conf").write_text(OUTSIDE.format(folder=folder, inside=inside))
        command = ["nginx", "-c", str(folder / "nginx.conf"), "-p", str(folder), "-e", str(folder / "error.log")]
        self.process = subprocess.Popen(command)
        until(self.answers)

    def answers(self) -> bool:
        with contextlib.suppress(OSError):
            return self.ask("GET", "/queue/healthz")[0] == 200
        return False

    def connect(self) -> http.client.HTTPSConnection:
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        return http.client.HTTPSConnection("127.0.0.1", self.port, timeout=70, context=context)

    def ask(self, method: str, path: str, body: str | None = None, **headers: str) -> tuple[int, Any, bytes]:
        """Return status, headers and body of an answer."""
        with contextlib.closing(self.connect()) as connection:
            connection.request(method, path, body, {**HEADERS, **headers})
            answer = connection.getresponse()
            return answer.status, answer.headers, answer.read()

    def end(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        self.process.wait()


@pytest.fixture(scope="module")
def apps(valkey: Store, folder: Path) -> Iterator[list[App]]:
    """Two instances of the app on one Redis, for nginx to balance."""
    env = {"URL_PREFIX": "/queue", "TRUSTED_PROXIES": "127.0.0.1", "API_TOKEN": TOKEN, "WEB_CONCURRENCY": "1"}
    env["TRUSTED_HOSTS"] = "queue.example.com"
    with (
        running(App(folder / "behind1", REDIS_URL=valkey.url, **env)) as one,
        running(App(folder / "behind2", REDIS_URL=valkey.url, **env)) as other,
    ):
        yield [one, other]


@pytest.fixture(scope="module")
def nginx(apps: list[App], folder: Path) -> Iterator[Nginx]:
    with running(Nginx(folder / "nginx", apps)) as started:
        yield started


@pytest.mark.parametrize("at", ["/queue", "/stripped"])
def test_page_static_files_and_api_are_at_the_sub_path(nginx: Nginx, name: str, at: str) -> None:
    status, _, page = nginx.ask("GET", f"{at}/q/{name}")
    assert status == 200
    for link in set(re.findall(r'(?:href|src)="(/[^"]+)"', page.decode())):
        assert link.startswith("/queue/"), link
        assert nginx.ask("GET", link)[0] == 200, link
    assert nginx.ask("POST", f"{at}/api/queue/{name}/push", "message=a")[0] == 200
    assert json.loads(nginx.ask("POST", f"{at}/api/queue/{name}/pop")[2])["message"] == "a"


def test_a_session_cookie_is_limited_to_the_sub_path_and_tls(nginx: Nginx) -> None:
    status, headers, _ = nginx.ask("POST", "/queue/login", f"token={TOKEN}&to=/q/jobs")
    assert (status, headers["Location"]) == (303, "/queue/q/jobs")
    cookie = headers["Set-Cookie"]
    assert "; Secure" in cookie and "; Path=/queue" in cookie
    found = nginx.ask("GET", "/queue/api/queue/count", Authorization="", Cookie=cookie.partition(";")[0])
    assert found[0] == 200


@pytest.mark.parametrize("host", ["queue.example.com", "queue.example.com:8443", "127.0.0.1"])
def test_the_host_header_passes_with_and_without_a_port(nginx: Nginx, host: str) -> None:
    origin = {"Host": host, "Origin": f"https://{host}"}
    assert nginx.ask("POST", "/queue/api/queue/hosts/push", "message=a", **origin)[0] == 200
    assert nginx.ask("GET", "/queue/api/queue/count", Host="evil.example")[0] == 400


def test_a_page_of_another_site_cannot_choose_the_host(nginx: Nginx) -> None:
    """Its name points at nginx (DNS rebinding), and a page may add any X- header to a request to its own site."""
    forged = {"X-Forwarded-Host": "localhost", "Sec-Fetch-Site": "same-origin"}
    for path in ("/queue/api/queue/count", "/queue/", "/queue/login"):
        assert nginx.ask("GET", path, Host="evil.example", **forged)[0] == 400, path


def test_http_2_works(nginx: Nginx) -> None:
    url = f"https://127.0.0.1:{nginx.port}/queue/api/queue/count"
    command = ["curl", "-sk", "--http2", "-H", f"Authorization: Bearer {TOKEN}", "-w", "%{http_version}", url]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.endswith("}\n2")


def test_a_thousand_requests_on_kept_connections_succeed(nginx: Nginx, name: str) -> None:
    def ask(number: int) -> Counter[int]:
        """Push and pop on one connection, 100 requests in all."""
        found: Counter[int] = Counter()
        with contextlib.closing(nginx.connect()) as connection:
            for index in range(100):
                path, body = ("push", "message=a") if index % 2 == 0 else ("pop", "")
                connection.request("POST", f"/queue/api/queue/{name}{number}/{path}", body, HEADERS)
                answer = connection.getresponse()
                assert json.loads(answer.read())["success"]
                found[answer.status] += 1
        return found

    with ThreadPoolExecutor(10) as pool:
        assert sum(pool.map(ask, range(10)), Counter()) == {200: 1000}


def test_events_arrive_without_buffering(nginx: Nginx, name: str, valkey: Store) -> None:
    with contextlib.closing(nginx.connect()) as connection:
        connection.request("GET", f"/queue/api/queue/{name}/events", headers=HEADERS)
        answer = connection.getresponse()
        lines = iter(answer.readline, b"")
        assert any(b'"count":0' in line for line in lines)
        valkey.client().lpush(f"queue:{name}", "a")
        assert any(b'"count":1' in line for line in lines)


def test_each_of_many_waiting_clients_gets_one_message(nginx: Nginx, name: str, valkey: Store) -> None:
    def wait(_: int) -> str:
        status, _, body = nginx.ask("POST", f"/queue/api/queue/{name}/pop?wait=60")
        assert status == 200
        return str(json.loads(body)["message"])

    with ThreadPoolExecutor(16) as pool:
        waiting = [pool.submit(wait, number) for number in range(16)]
        until(lambda: json.loads(nginx.ask("GET", f"/queue/api/queue/{name}/count")[2])["waiters"] == 16)
        valkey.client().lpush(f"queue:{name}", *range(16))
        assert sorted(int(one.result()) for one in waiting) == list(range(16))


@pytest.mark.parametrize("how", ["closed", "half-closed"])
def test_a_client_that_disconnects_takes_no_message(nginx: Nginx, name: str, valkey: Store, how: str) -> None:
    """nginx treats a client that has ended its sending as disconnected."""

    def waiters() -> int:
        return int(json.loads(nginx.ask("GET", f"/queue/api/queue/{name}/count")[2])["waiters"])

    connection = nginx.connect()
    connection.request("POST", f"/queue/api/queue/{name}/pop?wait=60", "", HEADERS)
    until(lambda: waiters() == 1)
    if how == "closed":
        connection.close()
    else:
        connection.sock.shutdown(socket.SHUT_WR)
    until(lambda: waiters() == 0)
    valkey.client().lpush(f"queue:{name}", "a")
    assert valkey.client().llen(f"queue:{name}") == 1
    connection.close()


def test_wrong_tokens_are_counted_for_the_client_of_nginx(nginx: Nginx, apps: list[App]) -> None:
    forged = {"Authorization": "Bearer a-guess-that-is-wrong", "X-Forwarded-For": "198.51.100.77"}
    assert nginx.ask("GET", "/queue/api/queue/count", **forged)[0] == 401
    logs = "".join(app.log.read_text() for app in apps)
    # nginx adds 127.0.0.1, which is a trusted proxy here, so the address before it is the client's.
    assert "Wrong token from 198.51.100.77" in logs


@pytest.mark.parametrize("kind", ["stream", "large"])
def test_large_bodies_pass(nginx: Nginx, name: str, kind: str) -> None:
    body = "line\n" * 300_000 if kind == "stream" else "a" * 1_000_000
    query = "?each=line" if kind == "stream" else ""
    status, _, answer = nginx.ask(
        "POST", f"/queue/api/queue/{name}/push{query}", body, **{"Content-Type": "text/plain"}
    )
    assert (status, json.loads(answer)["count"]) == (200, 300_000 if kind == "stream" else 1)


@pytest.mark.soak
def test_nginx_skips_an_instance_that_restarts(
    serve: Callable[..., App], valkey: Store, folder: Path, name: str
) -> None:
    """No request gets a 502."""
    env = {"REDIS_URL": valkey.url, "URL_PREFIX": "/queue", "WEB_CONCURRENCY": "1"}
    two = [serve(**env), serve(**env)]

    def restart() -> None:
        two[0].end()
        two[0].start()

    statuses: list[int] = []
    with running(Nginx(folder / f"nginx-{name}", two)) as nginx, ThreadPoolExecutor(1) as pool:
        restarted = pool.submit(restart)
        while not restarted.done() or len(statuses) < 200:
            statuses.append(nginx.ask("GET", f"/queue/api/queue/{name}/count")[0])
        restarted.result()
    assert set(statuses) == {200}
