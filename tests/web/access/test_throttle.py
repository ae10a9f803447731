"""Wrong tokens are throttled and logged, and never lock out a client with a valid one."""

import logging
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from flask.testing import FlaskClient

from app import create_app
from settings import Settings
from tests.servers import App, FakeRedis, Store, until
from web.access import throttle as throttling
from web.access.throttle import FREE_ATTEMPTS, MAX_CLIENTS, MAX_DELAY, MAX_DELAYED_PER_CLIENT, AuthThrottle, network_of
from web.errors import ApiError

TOKEN, WRONG = "correct-horse-battery", "a-guess-that-is-wrong"


@pytest.fixture
def client() -> FlaskClient:
    return create_app(Settings(api_tokens=(TOKEN.encode(),)), FakeRedis()).test_client()


@pytest.fixture
def slept(client: FlaskClient) -> list[float]:
    """The delays of the client's answers, in seconds, which are recorded instead of slept."""
    found: list[float] = []
    client.application.extensions["queue"].auth_throttle = AuthThrottle(found.append)
    return found


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def tries(client: FlaskClient) -> dict[str, Callable[[str], int]]:
    """Return every way to send a token, by name."""
    return {
        "the sign-in form": lambda token: client.post("/login", data={"token": token}).status_code,
        "the sign-in form as JSON": lambda token: client.post("/login", json={"token": token}).status_code,
        "a header": lambda token: client.get("/api/queue/count", headers=bearer(token)).status_code,
        "a page": lambda token: client.get("/", headers=bearer(token)).status_code,
        "an unknown path": lambda token: client.get("/api/nothing", headers=bearer(token)).status_code,
    }


@pytest.mark.parametrize("way", tries(None))  # type: ignore[arg-type]
def test_wrong_tokens_are_slowed_down_more_and_more(client: FlaskClient, slept: list[float], way: str) -> None:
    for _ in range(FREE_ATTEMPTS):
        assert tries(client)[way](WRONG) == 401
    assert slept == []
    for _ in range(8):
        assert tries(client)[way](WRONG) == 401
    assert slept == sorted(slept) and len(slept) == 8
    assert slept[0] > 0 and slept[-1] == MAX_DELAY


def test_the_sign_in_page_counts_a_wrong_token_too(client: FlaskClient, slept: list[float]) -> None:
    for _ in range(FREE_ATTEMPTS + 1):
        assert client.get("/login", headers=bearer(WRONG)).status_code == 200
    assert len(slept) == 1


def test_a_valid_token_is_never_delayed(client: FlaskClient, slept: list[float]) -> None:
    for _ in range(20):
        tries(client)["a header"](WRONG)
    slept.clear()
    assert tries(client)["a header"](TOKEN) == 200
    assert tries(client)["the sign-in form"](TOKEN) == 303
    assert tries(client)["the sign-in form"]("") == 401  # no guess
    assert client.get("/api/queue/count").status_code == 200  # by the session
    assert slept == []


def test_a_request_without_a_token_is_not_an_attempt(client: FlaskClient, slept: list[float]) -> None:
    for _ in range(20):
        assert client.get("/api/queue/count").status_code == 401
        assert client.get("/", headers={"Authorization": "Basic YTpi"}).status_code == 401
        assert client.get("/healthz", headers=bearer(WRONG)).status_code == 200
    assert slept == []


def test_each_ip_address_is_counted_separately(client: FlaskClient, slept: list[float]) -> None:
    for number in range(20):
        other = {"REMOTE_ADDR": f"192.0.2.{number}"}
        assert client.get("/api/queue/count", headers=bearer(WRONG), environ_overrides=other).status_code == 401
    assert slept == []


def test_they_are_logged_without_the_token(
    client: FlaskClient, slept: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    for way in tries(client).values():
        for _ in range(20):
            way(WRONG)
    assert "Wrong token from 127.0.0.1: 1 recently" in caplog.text
    assert WRONG not in caplog.text and TOKEN not in caplog.text
    assert len(caplog.records) < 10  # nobody can fill the log


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2:ffff::1", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", "a unix socket"),
    ],
)
def test_all_addresses_of_a_network_are_one_client(address: str, network: str) -> None:
    assert network_of(address) == network


@pytest.mark.slow
def test_the_number_of_remembered_clients_is_bounded() -> None:
    throttle = AuthThrottle()
    for number in range(MAX_CLIENTS + 100):
        throttle.record_failure(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}")
    assert len(throttle._clients) == MAX_CLIENTS


def test_a_client_starts_afresh_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    throttle = AuthThrottle(slept.append)
    for _ in range(20):
        throttle.record_failure("192.0.2.1")
    slept.clear()
    monkeypatch.setattr(throttling, "MEMORY_SECONDS", 0.0)
    throttle.record_failure("192.0.2.1")
    assert slept == []


def test_the_number_of_delayed_answers_is_bounded() -> None:
    go_on = threading.Event()
    throttle = AuthThrottle(lambda seconds: go_on.wait(20))
    for _ in range(FREE_ATTEMPTS):
        throttle.record_failure("192.0.2.1")
    with ThreadPoolExecutor(MAX_DELAYED_PER_CLIENT) as pool:
        delayed = [pool.submit(throttle.record_failure, "192.0.2.1") for _ in range(MAX_DELAYED_PER_CLIENT)]
        until(lambda: throttle._delayed == MAX_DELAYED_PER_CLIENT)
        with pytest.raises(ApiError, match="Too many wrong tokens") as raised:
            throttle.record_failure("192.0.2.1")
        throttle.record_failure("192.0.2.2")  # another client is not affected
        go_on.set()
    assert all(one.result() is None for one in delayed)
    assert (raised.value.status, raised.value.error) == (429, "too_many_attempts")
    assert throttle._delayed == 0


@pytest.mark.slow
def test_many_guesses_at_once_do_not_keep_the_right_token_out(serve: Callable[..., App], valkey: Store) -> None:
    site = serve(REDIS_URL=valkey.url, API_TOKEN=TOKEN, WEB_CONCURRENCY="1")

    def ask(token: str, path: str = "/api/queue/count") -> tuple[int, float]:
        started = time.monotonic()
        request = urllib.request.Request(site.url + path, headers=bearer(token))
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status, time.monotonic() - started
        except urllib.error.HTTPError as error:
            return error.code, time.monotonic() - started

    with ThreadPoolExecutor(40) as pool:
        started = time.monotonic()
        guesses = [pool.submit(ask, WRONG) for _ in range(150)]
        valid = [ask(TOKEN) for _ in range(20)]
        answered: list[Any] = [one.result() for one in guesses]
        took = time.monotonic() - started
    assert {status for status, _ in valid} == {200}
    assert max(seconds for _, seconds in valid) < 5
    checked = [status for status, _ in answered if status == 401]
    assert {status for status, _ in answered} <= {401, 429}
    assert len(checked) <= FREE_ATTEMPTS + MAX_DELAYED_PER_CLIENT * (took / 0.25 + 1)
    log = site.log.read_text()
    assert "Wrong token from 127.0.0.1: 1 recently" in log
    assert WRONG not in log and TOKEN not in log
