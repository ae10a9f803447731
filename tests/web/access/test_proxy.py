"""URL_PREFIX and TRUSTED_PROXIES: headers of proxies are trusted, those of others are not."""

import ipaddress
import json
import re
from collections.abc import Callable
from typing import Any

import pytest
from flask.testing import FlaskClient

from settings import BadSetting, Settings, read
from tests.conftest import AppOn
from tests.servers import FakeRedis
from tests.web.access.test_token import cookie_of
from web.access.proxy import client_address
from web.access.throttle import FREE_ATTEMPTS, AuthThrottle

TOKEN = "correct-horse-battery"
PROXY, CLIENT = "192.0.2.1", "203.0.113.7"
SETTINGS: dict[str, Any] = {
    "api_tokens": (TOKEN.encode(),),
    "trusted_proxies": (ipaddress.ip_network("192.0.2.0/28"), ipaddress.ip_network("2001:db8::/64")),
}

ClientOf = Callable[..., FlaskClient]


@pytest.fixture
def client_of(app_on: AppOn) -> ClientOf:
    """Make clients of apps with settings: client_of(url_prefix="/queue")."""
    return lambda **settings: app_on(Settings(**settings), FakeRedis()).test_client()


@pytest.mark.parametrize("stripped", [True, False], ids=["stripped", "kept"])
def test_everything_is_under_the_prefix(client_of: ClientOf, stripped: bool) -> None:
    client = client_of(url_prefix="/apps/queue", api_tokens=(TOKEN.encode(),))
    at = "" if stripped else "/apps/queue"
    sign_in_page = client.get(f"{at}/q/jobs").text
    assert 'action="/apps/queue/login"' in sign_in_page and 'name="to" value="/q/jobs"' in sign_in_page
    answer = client.post(f"{at}/login", data={"token": TOKEN, "to": "/q/jobs"})
    assert (answer.status_code, answer.headers["Location"]) == (303, "/apps/queue/q/jobs")
    assert "; Path=/apps/queue" in cookie_of(answer)
    headers = {"Authorization": f"Bearer {TOKEN}"}
    page = client.get(f"{at}/", headers=headers).text
    links = re.findall(r'(?:href|src|action)="([^"]+)"', page)
    assert links and all(link.startswith("/apps/queue/") for link in links if link != "#main")
    assert client.get(f"{at}/static/js/client.js").status_code == 200
    assert client.get(f"{at}/healthz").status_code == 200
    assert client.post(f"{at}/api/queue/push", data={"message": "a"}, headers=headers).status_code == 200
    assert client.get(f"{at}/metrics", headers=headers).status_code == 200
    assert 'href="/apps/queue/"' in client.get(f"{at}/no/such", headers=headers).text


def test_a_static_file_under_the_prefix_can_be_cached(client_of: ClientOf) -> None:
    client = client_of(url_prefix="/queue")
    assert "no-store" not in client.get("/queue/static/js/client.js").headers.get("Cache-Control", "")
    assert client.get("/queue/api/queue/count").headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize(
    ("path", "status"), [("/queue", 200), ("/queue/", 200), ("/queuex", 404), ("/queue/queue", 404)]
)
def test_the_prefix_matches_whole_segments_of_the_path(client_of: ClientOf, path: str, status: int) -> None:
    assert client_of(url_prefix="/queue").get(path).status_code == status


def test_signing_out_deletes_the_cookie_at_its_path(client_of: ClientOf) -> None:
    client = client_of(url_prefix="/queue", api_tokens=(TOKEN.encode(),))
    assert client.post("/queue/login", data={"token": TOKEN}).status_code == 303
    assert client.get("/queue/api/queue/count").status_code == 200
    answer = client.post("/queue/logout")
    assert answer.headers["Location"] == "/queue/"
    assert "; Path=/queue" in cookie_of(answer)
    assert client.get("/queue/api/queue/count").status_code == 401


@pytest.mark.parametrize(
    "prefix", ["queue", "//evil.test", "/a b", "/a//b", "/..", "/a/./b", "/é", "/a?b", "https://x/y"]
)
def test_a_malformed_prefix_is_refused(prefix: str) -> None:
    with pytest.raises(BadSetting, match="URL_PREFIX"):
        read({"URL_PREFIX": prefix})


def test_a_prefix_can_end_in_a_slash() -> None:
    assert read({"URL_PREFIX": "/a/b.c/"}).url_prefix == "/a/b.c"
    assert read({"URL_PREFIX": "/"}).url_prefix == ""


# --- trusted proxies


def from_peer(peer: str, **headers: str) -> dict[str, Any]:
    return {"headers": headers, "environ_overrides": {"REMOTE_ADDR": peer}}


@pytest.mark.parametrize(
    ("peer", "is_trusted"),
    [
        (PROXY, True),
        ("::ffff:192.0.2.1", True),
        ("2001:db8::9", True),
        ("192.0.2.16", False),
        ("127.0.0.1", False),
        ("", False),
    ],
)
def test_the_scheme_is_read_from_proxies_alone(client_of: ClientOf, peer: str, is_trusted: bool) -> None:
    request = from_peer(peer, **{"X-Forwarded-Proto": "https"})
    answer = client_of(**SETTINGS).post("/login", data={"token": TOKEN}, **request)
    assert ("; Secure" in cookie_of(answer)) == is_trusted


def test_nobody_is_believed_by_default(client_of: ClientOf) -> None:
    client = client_of(api_tokens=(TOKEN.encode(),))
    request = from_peer("127.0.0.1", **{"X-Forwarded-Proto": "https", "X-Forwarded-Host": "evil.example"})
    answer = client.post("/login", data={"token": TOKEN}, **request)
    assert answer.status_code == 303 and "; Secure" not in cookie_of(answer)


def test_a_forwarded_host_is_read_from_proxies_alone_and_must_be_trusted(client_of: ClientOf) -> None:
    client = client_of(**SETTINGS | {"api_tokens": ()}, trusted_hosts=("queue.example",))
    for peer, inner, outer, status in [
        (PROXY, "web.internal", "queue.example", 200),
        (PROXY, "web.internal", "evil.example, queue.example", 200),
        (PROXY, "localhost", "evil.example", 400),
        (CLIENT, "web.internal", "queue.example", 400),
    ]:
        answer = client.get("/api/queue/count", **from_peer(peer, **{"Host": inner, "X-Forwarded-Host": outer}))
        assert answer.status_code == status, (peer, inner, outer)


@pytest.mark.parametrize(
    ("forwarded_for", "address"),
    [
        (CLIENT, CLIENT),
        ("", PROXY),
        (f"10.6.6.6, {CLIENT}", CLIENT),
        (f"192.0.2.3, {CLIENT}, 192.0.2.2", CLIENT),
        (f"{CLIENT}:4711", CLIENT),
        (f"{CLIENT}, [2001:db8::5]:443", CLIENT),
        ("[2001:db8:ffff::1]:443", "2001:db8:ffff::1"),
        (f"{CLIENT}, made up", PROXY),
        (f"{CLIENT}, made up, 192.0.2.2", "192.0.2.2"),
        ("192.0.2.3, 192.0.2.4", "192.0.2.3"),
    ],
)
def test_the_client_is_the_last_address_that_is_not_a_proxy(forwarded_for: str, address: str) -> None:
    assert client_address(PROXY, forwarded_for, SETTINGS["trusted_proxies"]) == address


def test_wrong_tokens_count_for_the_real_client_and_cannot_be_blamed_on_another(client_of: ClientOf) -> None:
    client = client_of(**SETTINGS)
    slept: list[float] = []
    client.application.extensions["queue"].auth_throttle = AuthThrottle(slept.append)

    def guess(peer: str, forwarded_for: str) -> bool:
        """Return whether the answer to a wrong token was delayed."""
        slept.clear()
        headers = {"Authorization": "Bearer a-guess", "X-Forwarded-For": forwarded_for}
        client.get("/api/queue/count", **from_peer(peer, **headers))
        return bool(slept)

    for number in range(FREE_ATTEMPTS):
        assert not guess(PROXY, f"10.0.0.{number}, {CLIENT}")
    assert guess(PROXY, f"10.0.0.99, {CLIENT}")
    assert not guess(PROXY, "203.0.113.8")
    for number in range(FREE_ATTEMPTS):
        assert not guess("198.51.100.1", f"203.0.113.{100 + number}")
    assert guess("198.51.100.1", "203.0.113.200")


@pytest.mark.parametrize("value", ["proxy", "10.0.0.1/8", "10.0.0.0/33", "::1/x", "*"])
def test_a_malformed_network_is_refused(value: str) -> None:
    with pytest.raises(BadSetting, match="TRUSTED_PROXIES"):
        read({"TRUSTED_PROXIES": value})


# --- USER_HEADER


def test_the_user_is_believed_from_a_trusted_proxy_alone(
    client_of: ClientOf, capfd: pytest.CaptureFixture[str]
) -> None:
    client = client_of(user_header="Remote-User", trusted_proxies=SETTINGS["trusted_proxies"])
    for peer, user in ((PROXY, "ana@example.com"), (CLIENT, "root"), (PROXY, "")):
        request: dict[str, Any] = {"headers": {"Remote-User": user}, "environ_base": {"REMOTE_ADDR": peer}}
        assert ("ana@example.com" in client.get("/q/jobs", **request).text) is (user == "ana@example.com")
        assert "root" not in client.get("/q/jobs", **request).text
        assert client.post("/api/queue/jobs/push", json={"messages": ["s3cr3t", "b"]}, **request).status_code == 200
    [line] = capfd.readouterr().out.splitlines()
    assert json.loads(line) | {"time": ""} == {
        "time": "",
        "user": "ana@example.com",
        "operation": "push",
        "queue": "jobs",
        "messages": 2,
        "client": PROXY,
    }


def test_each_change_is_logged_with_its_user_and_what_changed_nothing_is_not(
    client_of: ClientOf, capfd: pytest.CaptureFixture[str]
) -> None:
    client = client_of(user_header="Remote-User", trusted_proxies=SETTINGS["trusted_proxies"])
    headers = {"Remote-User": "Žofie".encode().decode("latin-1"), "Accept": "text/plain"}
    for operation, data in (
        ("push", "message=a"),
        ("pop", ""),  # the message as text
        ("pop", ""),  # there is none
        ("push?each=line", "a\nb\nc"),
        ("import", '{"message":"d"}'),
        ("clear", ""),
        ("pause", ""),
        ("ack", "id=gone"),
    ):
        kinds = {"push?each=line": "text/plain", "import": "application/x-ndjson"}
        client.post(
            f"/api/queue/jobs/{operation}",
            data=data,
            content_type=kinds.get(operation, "application/x-www-form-urlencoded"),
            headers=headers,
            environ_base={"REMOTE_ADDR": PROXY},
        )
    lines = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    assert {line["user"] for line in lines} == {"Žofie"}
    expected = [("push", 1), ("pop", 1), ("push", 3), ("import_queue", 1), ("clear", 4), ("pause", 0)]
    assert [(line["operation"], line["messages"]) for line in lines] == expected


def test_a_user_header_needs_trusted_proxies() -> None:
    with pytest.raises(BadSetting, match="TRUSTED_PROXIES"):
        read({"USER_HEADER": "Remote-User"})
    assert read({"USER_HEADER": "Remote-User", "TRUSTED_PROXIES": "10.0.0.5"}).user_header == "Remote-User"
