"""Access: trusted Hosts, cross-site requests, and the security headers."""

import pytest

from tests.conftest import Api


@pytest.fixture
def api(named_api: Api) -> Api:
    """The checks do not depend on how the queue is addressed."""
    return named_api


HOSTS = [
    "localhost",
    "localhost:5000",
    "LOCALHOST:5000",
    "localhost.",
    "queue.localhost:5000",
    "127.0.0.1",
    "127.0.0.1:5000",
    "192.168.1.5:80",
    "[::1]",
    "[::1]:5000",
    "[FE80::1]:5000",
]
FOREIGN_HOSTS = [
    "evil.example",
    "evil.example:5000",
    "localhost.evil.example",
    "127.0.0.1.evil.example",
    "notlocalhost",
    "localhost:",
    "localhost:x",
    "localhost:123456",
    "localhost,evil.example",
    "localhost evil.example",
    "user@localhost",
    "localhost/",
    "::1",
    "[::1",
    "[localhost]",
    "2130706433",
    "0x7f000001",
    "127.1",
    "ľocalhost",
    ".",
    "%6cocalhost",
]


@pytest.mark.parametrize("host", HOSTS)
def test_local_names_and_ip_addresses_are_trusted(api: Api, host: str) -> None:
    assert api.post("push", json={"message": "a"}, headers={"Host": host}).json["success"]


@pytest.mark.parametrize("host", FOREIGN_HOSTS)
def test_a_foreign_host_is_refused_and_changes_nothing(api: Api, host: str) -> None:
    for answer in (
        api.post("push", json={"message": "a"}, environ_overrides={"HTTP_HOST": host}),
        api.get("all", environ_overrides={"HTTP_HOST": host}),
    ):
        assert (answer.status_code, answer.json["error"]) == (400, "untrusted_host")
        assert "TRUSTED_HOSTS" in answer.json["message"]
    assert api.messages() == []
    assert api.http.get("/", environ_overrides={"HTTP_HOST": host}).status_code == 400


@pytest.mark.parametrize(
    ("host", "served"),
    [
        ("queue.example", True),
        ("QUEUE.example:8080", True),
        ("queue.example.", True),
        ("a.queue.example", False),
        ("b.team.example", True),
        ("team.example", True),
        ("xteam.example", False),
        ("localhost", True),
        ("10.0.0.1", True),
    ],
)
def test_trusted_hosts_are_added_to_the_local_ones(api: Api, host: str, served: bool) -> None:
    api = api.with_settings(trusted_hosts=("queue.example", ".team.example"))
    assert (api.get("count", headers={"Host": host}).status_code == 200) == served


@pytest.mark.parametrize(
    ("headers", "allowed"),
    [
        ({}, True),
        ({"Sec-Fetch-Site": "same-origin"}, True),
        ({"Sec-Fetch-Site": "none"}, True),
        ({"Sec-Fetch-Site": "same-origin", "Origin": "http://localhost:5000"}, True),
        ({"Sec-Fetch-Site": "same-origin", "Origin": "http://evil.example"}, False),
        ({"Sec-Fetch-Site": "none", "Origin": "http://evil.example"}, False),
        ({"Sec-Fetch-Site": "same-origin", "Origin": "null"}, False),
        ({"Origin": "http://localhost:5000"}, True),
        ({"Origin": "https://localhost:5000"}, True),
        ({"Origin": "HTTP://LOCALHOST:5000"}, True),
        ({"Sec-Fetch-Site": "cross-site"}, False),
        ({"Sec-Fetch-Site": "same-site"}, False),
        ({"Sec-Fetch-Site": ""}, False),
        ({"Sec-Fetch-Site": "nonsense"}, False),
        ({"Sec-Fetch-Site": "cross-site", "Origin": "http://localhost:5000"}, False),
        ({"Origin": "http://evil.example"}, False),
        ({"Origin": "http://localhost:5001"}, False),
        ({"Origin": "http://localhost"}, False),
        ({"Origin": "http://localhost:5000.evil.example"}, False),
        ({"Origin": "http://evil.example/localhost:5000"}, False),
        ({"Origin": "http://user@localhost:5000"}, False),
        ({"Origin": "null"}, False),
        ({"Origin": ""}, False),
        ({"Origin": "http://[::1"}, False),
        ({"Origin": "://"}, False),
        ({"Origin": "localhost:5000"}, False),
    ],
    ids=str,
)
def test_only_the_own_page_and_programs_use_a_queue(api: Api, headers: dict[str, str], allowed: bool) -> None:
    api.client.lpush(api.key, "waiting")
    answer = api.post("push", json={"message": "a"}, headers={"Host": "localhost:5000", **headers})
    if allowed:
        assert answer.json["success"]
        return
    assert (answer.status_code, answer.json["success"], answer.json["error"]) == (403, False, "cross_site")
    assert api.post("pop", headers={"Host": "localhost:5000", **headers}).status_code == 403
    assert api.messages() == [b"waiting"]
    assert api.get("count", headers={"Host": "localhost:5000", **headers}).status_code == 403


@pytest.mark.parametrize("path", ["/", "/nothing", "/api/queue/all", "/api/nothing", "/static/nothing"])
def test_every_answer_carries_the_security_headers(api: Api, path: str) -> None:
    headers = api.http.get(path).headers
    policy = headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy and "http" not in policy
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert "frame-ancestors 'none'" in policy
    assert headers["Referrer-Policy"] == "same-origin"
    assert "Access-Control-Allow-Origin" not in headers
