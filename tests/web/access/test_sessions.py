"""Sessions of the page: two instances on one host, signing out, and an unavailable Redis."""

import http.cookiejar
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from http.cookies import SimpleCookie
from typing import Any

import pytest
from flask.testing import FlaskClient
from itsdangerous import TimestampSigner
from werkzeug.test import TestResponse

from app import create_app
from settings import Settings
from tests.servers import App, FakeRedis, Proxy, Store, until
from web.access import auth as security

TOKEN, OTHER = "correct-horse-battery", "another-horse-battery"


class Browser:
    """A browser with its cookies, which are shared between ports."""

    def __init__(self, jar: http.cookiejar.CookieJar | None = None) -> None:
        self.jar = http.cookiejar.CookieJar() if jar is None else jar
        self._opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(self.jar))

    def ask(self, site: App, path: str, data: dict[str, str] | None = None) -> int:
        """Return the status of an answer; with `data` send a form."""
        body = None if data is None else urllib.parse.urlencode(data).encode()
        try:
            with self._opener.open(site.url + path, body, timeout=20) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code

    def copy(self) -> "Browser":
        """Return a browser with copies of the cookies, as a thief would have it."""
        thief = Browser()
        for cookie in self.jar:
            thief.jar.set_cookie(cookie)
        return thief


def app_client(token: str = TOKEN, redis: Any = None) -> FlaskClient:
    return create_app(Settings(api_tokens=(token.encode(),)), redis or FakeRedis()).test_client()


def sign_in(client: FlaskClient, token: str = TOKEN) -> TestResponse:
    return client.post("/login", data={"token": token})


def cookie_of(answer: TestResponse) -> tuple[str, str]:
    """Return the name and the value of the cookie in an answer."""
    [(name, morsel)] = SimpleCookie(answer.headers["Set-Cookie"]).items()
    return name, morsel.value


# --- two instances


@pytest.mark.slow
def test_instances_with_different_tokens_on_one_host_keep_their_sessions(
    serve: Callable[..., App], valkey: Store
) -> None:
    one, other = serve(REDIS_URL=valkey.url, API_TOKEN=TOKEN), serve(REDIS_URL=valkey.url, API_TOKEN=OTHER)
    browser = Browser()
    assert browser.ask(one, "/login", {"token": TOKEN}) == 200
    assert browser.ask(other, "/login", {"token": OTHER}) == 200
    for _ in range(2):
        assert browser.ask(one, "/api/queue/count") == 200
        assert browser.ask(other, "/api/queue/count") == 200
    assert browser.ask(one, "/logout", {}) == 401  # the page asks for the token
    assert browser.ask(one, "/api/queue/count") == 401
    assert browser.ask(other, "/api/queue/count") == 200


def test_the_name_of_the_cookie_does_not_reveal_the_token() -> None:
    names = {cookie_of(sign_in(app_client(token), token))[0] for token in (TOKEN, OTHER)}
    assert len(names) == 2
    assert not any(token[:8] in name for token in (TOKEN, OTHER) for name in names)


def test_a_session_of_another_token_is_invalid() -> None:
    _, value = cookie_of(sign_in(app_client(OTHER), OTHER))
    client = app_client()
    client.set_cookie(cookie_of(sign_in(app_client()))[0], value)
    assert client.get("/").status_code == 401


# --- signing out


@pytest.mark.slow
def test_signing_out_ends_the_session_for_a_copied_cookie_in_every_process(
    serve: Callable[..., App], valkey: Store
) -> None:
    site = serve(REDIS_URL=valkey.url, API_TOKEN=TOKEN, WEB_CONCURRENCY="2")
    twin = serve(REDIS_URL=valkey.url, API_TOKEN=TOKEN)
    browser, colleague = Browser(), Browser()
    assert browser.ask(site, "/login", {"token": TOKEN}) == 200
    assert colleague.ask(site, "/login", {"token": TOKEN}) == 200
    thief = browser.copy()
    assert thief.ask(site, "/api/queue/count") == thief.ask(twin, "/api/queue/count") == 200
    assert browser.ask(site, "/logout", {}) == 401
    for one in (site, site, site, twin):
        assert thief.ask(one, "/api/queue/count") == 401
        assert thief.ask(one, "/") == 401
        assert colleague.ask(one, "/api/queue/count") == 200
    assert browser.ask(site, "/login", {"token": TOKEN}) == 200
    assert browser.ask(site, "/api/queue/count") == 200


@pytest.mark.slow
def test_signing_out_ends_the_streams_of_the_session(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(security, "SESSION_CHECK_INTERVAL", 0.0)
    redis = FakeRedis()
    client, thief, bearer = app_client(redis=redis), app_client(redis=redis), app_client(redis=redis)
    thief.set_cookie(*cookie_of(sign_in(client)))
    stolen = lines(thief.get("/api/queue/events"))
    program = lines(bearer.get("/api/queue/events", headers={"Authorization": f"Bearer {TOKEN}"}))
    assert next(stolen) and next(program)
    client.post("/logout")
    list(stolen)  # it ends
    redis.lpush("queue:default", "a")
    assert any('"count":1' in line for line in program)


def lines(answer: TestResponse) -> Iterator[str]:
    for part in answer.iter_encoded():
        yield part.decode()


def test_a_session_expires_within_a_day(monkeypatch: pytest.MonkeyPatch) -> None:
    client = app_client()
    answer = sign_in(client)
    [morsel] = SimpleCookie(answer.headers["Set-Cookie"]).values()
    assert 3600 <= int(morsel["max-age"]) <= 24 * 3600
    monkeypatch.setattr(security, "MAX_SESSION_SECONDS", -1)
    assert client.get("/").status_code == 401


@pytest.mark.parametrize(("ahead", "status"), [(1, 200), (59, 200), (300, 401)])
def test_a_session_of_an_instance_whose_clock_is_ahead_is_valid(
    monkeypatch: pytest.MonkeyPatch, ahead: int, status: int
) -> None:
    """Until its sign-out, which holds for as long as its cookie could be used on either."""
    redis = FakeRedis()
    other, ours = app_client(redis=redis), app_client(redis=redis)
    with monkeypatch.context() as patch:
        patch.setattr(TimestampSigner, "get_timestamp", lambda _: int(time.time()) + ahead)
        ours.set_cookie(*cookie_of(sign_in(other)))
    assert ours.get("/").status_code == status
    ours.post("/logout")
    if status == 200:
        [key] = redis.keys()
        assert redis.ttl(key) > security.MAX_SESSION_SECONDS + ahead


def test_a_revoked_session_is_stored_until_it_expires_and_is_not_listed_as_a_queue() -> None:
    redis = FakeRedis()
    client = app_client(redis=redis)
    assert redis.keys() == []
    sign_in(client)
    assert client.get("/").status_code == 200
    assert redis.keys() == []
    client.post("/logout")
    [key] = redis.keys()
    assert 0 < redis.ttl(key) <= 24 * 3600
    sign_in(client)
    assert client.get("/api/queues").json == {"success": True, "queues": [], "complete": True, "unnamed": 0}


def test_signing_out_without_a_session_stores_nothing() -> None:
    redis = FakeRedis()
    client = app_client(redis=redis)
    assert client.post("/logout").status_code == 401
    assert client.post("/logout", headers={"Authorization": f"Bearer {TOKEN}"}).status_code == 303
    client.set_cookie(cookie_of(sign_in(app_client()))[0], "made up")
    assert client.post("/logout", headers={"Authorization": f"Bearer {TOKEN}"}).status_code == 303
    assert redis.keys() == []


# --- Redis unavailable


@pytest.fixture
def without_redis(proxy: Proxy, serve: Callable[..., App]) -> tuple[App, Browser]:
    """A site and a browser that is signed in to it; then its Redis became unavailable."""
    site, browser = serve(REDIS_URL=proxy.url, API_TOKEN=TOKEN), Browser()
    assert browser.ask(site, "/login", {"token": TOKEN}) == 200
    assert browser.ask(site, "/api/queue/count") == 200
    proxy.refuse()
    return site, browser


@pytest.mark.slow
def test_a_session_is_valid_while_redis_is_unavailable(without_redis: tuple[App, Browser]) -> None:
    site, browser = without_redis
    assert browser.ask(site, "/") == 200
    assert browser.ask(site, "/api/queue/count") == 503
    assert Browser().ask(site, "/") == 401
    assert Browser().ask(site, "/login", {"token": TOKEN}) == 200


@pytest.mark.slow
def test_signing_out_while_redis_is_unavailable_fails_but_deletes_the_cookie(
    without_redis: tuple[App, Browser], proxy: Proxy
) -> None:
    site, browser = without_redis
    thief = browser.copy()
    assert browser.ask(site, "/logout", {}) == 503
    assert browser.ask(site, "/") == 401
    proxy.accept()
    assert until(lambda: thief.ask(site, "/api/queue/count") == 200)  # as the answer said, it was not revoked
    assert thief.ask(site, "/logout", {}) == 401
    assert thief.ask(site, "/api/queue/count") == 401
