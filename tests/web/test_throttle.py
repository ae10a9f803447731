"""Wrong tokens are slowed down and logged, and never keep out who has the right one."""

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
from web import throttle as attempts
from web.errors import ApiError
from web.throttle import FREE_ATTEMPTS, MAX_ADDRESSES, MAX_DELAY, MAX_DELAYED_PER_ADDRESS, AuthThrottle, network_of

TOKEN, WRONG = "correct-horse-battery", "a-guess-that-is-wrong"


@pytest.fixture
def client() -> FlaskClient:
    return create_app(Settings(api_tokens=(TOKEN.encode(),)), FakeRedis()).test_client()


@pytest.fixture
def slept(client: FlaskClient) -> list[float]:
    """The delays of the client's answers, which do not take place."""
    found: list[float] = []
    client.application.extensions["queue"].auth_throttle = AuthThrottle(found.append)
    return found


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def tries(client: FlaskClient) -> dict[str, Callable[[str], int]]:
    """Return every way to try a token, by name."""
    return {
        "the sign-in form": lambda token: client.post("/login", data={"token": token}).status_code,
        "the sign-in form as JSON": lambda token: client.post("/login", json={"token": token}).status_code,
        "a header": lambda token: client.get("/api/queue/count", headers=bearer(token)).status_code,
        "a page": lambda token: client.get("/", headers=bearer(token)).status_code,
        "nothing there": lambda token: client.get("/api/nothing", headers=bearer(token)).status_code,
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


def test_the_sign_in_page_tells_nobody_for_free(client: FlaskClient, slept: list[float]) -> None:
    for _ in range(FREE_ATTEMPTS + 1):
        assert client.get("/login", headers=bearer(WRONG)).status_code == 200
    assert len(slept) == 1


def test_a_right_token_is_never_delayed(client: FlaskClient, slept: list[float]) -> None:
    for _ in range(20):
        tries(client)["a header"](WRONG)
    slept.clear()
    assert tries(client)["a header"](TOKEN) == 200
    assert tries(client)["the sign-in form"](TOKEN) == 303
    assert tries(client)["the sign-in form"]("") == 401  # no guess
    assert client.get("/api/queue/count").status_code == 200  # by the session
    assert slept == []


def test_a_request_without_a_token_is_no_attempt(client: FlaskClient, slept: list[float]) -> None:
    for _ in range(20):
        assert client.get("/api/queue/count").status_code == 401
        assert client.get("/", headers={"Authorization": "Basic YTpi"}).status_code == 401
        assert client.get("/healthz", headers=bearer(WRONG)).status_code == 200
    assert slept == []


def test_each_address_counts_for_itself(client: FlaskClient, slept: list[float]) -> None:
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
    assert "Wrong token from 127.0.0.1: 1 lately" in caplog.text
    assert WRONG not in caplog.text and TOKEN not in caplog.text
    assert len(caplog.records) < 10  # nobody fills the log


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
def test_a_client_cannot_change_its_address_within_its_network(address: str, network: str) -> None:
    assert network_of(address) == network


@pytest.mark.slow
def test_the_memory_is_bounded() -> None:
    wrong = AuthThrottle()
    for number in range(MAX_ADDRESSES + 100):
        wrong.record_failure(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}")
    assert len(wrong._addresses) == MAX_ADDRESSES


def test_an_address_starts_anew_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    wrong = AuthThrottle(slept.append)
    for _ in range(20):
        wrong.record_failure("192.0.2.1")
    slept.clear()
    monkeypatch.setattr(attempts, "MEMORY_SECONDS", 0.0)
    wrong.record_failure("192.0.2.1")
    assert slept == []


def test_only_some_answers_are_delayed_at_once() -> None:
    go_on = threading.Event()
    wrong = AuthThrottle(lambda seconds: go_on.wait(20))
    for _ in range(FREE_ATTEMPTS):
        wrong.record_failure("192.0.2.1")
    with ThreadPoolExecutor(MAX_DELAYED_PER_ADDRESS) as pool:
        delayed = [pool.submit(wrong.record_failure, "192.0.2.1") for _ in range(MAX_DELAYED_PER_ADDRESS)]
        until(lambda: wrong._delayed == MAX_DELAYED_PER_ADDRESS)
        with pytest.raises(ApiError, match="Too many wrong tokens") as raised:
            wrong.record_failure("192.0.2.1")
        wrong.record_failure("192.0.2.2")  # another address is not concerned
        go_on.set()
    assert all(one.result() is None for one in delayed)
    assert (raised.value.status, raised.value.error) == (429, "too_many_attempts")
    assert wrong._delayed == 0


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
        rights = [ask(TOKEN) for _ in range(20)]
        answered: list[Any] = [one.result() for one in guesses]
        took = time.monotonic() - started
    assert {status for status, _ in rights} == {200}
    assert max(seconds for _, seconds in rights) < 5
    checked = [status for status, _ in answered if status == 401]
    assert {status for status, _ in answered} <= {401, 429}
    assert len(checked) <= FREE_ATTEMPTS + MAX_DELAYED_PER_ADDRESS * (took / 0.25 + 1)
    log = site.log.read_text()
    assert "Wrong token from 127.0.0.1: 1 lately" in log
    assert WRONG not in log and TOKEN not in log
