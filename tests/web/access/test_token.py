"""API_TOKEN: the requests that need it, the ways to send it, and sessions."""

import re
from collections.abc import Callable
from http.cookies import SimpleCookie

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from settings import Settings
from tests.conftest import AppOn
from tests.servers import FakeRedis

TOKEN = "correct horse battery"
BEARER = {"Authorization": f"Bearer {TOKEN}"}

ClientOf = Callable[[str], FlaskClient]


@pytest.fixture
def client_of(app_on: AppOn) -> ClientOf:
    """Make clients of apps with a token, each on its own store: client_of("the token")."""
    return lambda token: app_on(Settings(api_tokens=(token.encode(),) if token else ()), FakeRedis()).test_client()


@pytest.fixture
def client(client_of: ClientOf) -> FlaskClient:
    """A client of an app with a token."""
    return client_of(TOKEN)


def sign_in(client: FlaskClient, token: str = TOKEN, to: str = "/") -> TestResponse:
    return client.post("/login", data={"token": token, "to": to})


@pytest.mark.parametrize("path", ["count", "all", "events", "jobs/count", "jobs/events", "no/such/operation"])
def test_the_api_and_the_stream_need_the_token(client: FlaskClient, path: str) -> None:
    answer = client.get(f"/api/queue/{path}")
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"] == "Bearer"
    assert answer.get_json()["error"] == "token_required"
    assert answer.get_json()["success"] is False


def test_nothing_is_pushed_or_popped_without_the_token(client: FlaskClient) -> None:
    assert client.post("/api/queue/push", data={"message": "a"}).status_code == 401
    assert client.post("/api/queue/push", data={"message": "b"}, headers=BEARER).get_json()["count"] == 1
    assert client.post("/api/queue/pop").status_code == 401
    assert client.post("/api/queue/pop", headers=BEARER).get_json()["message"] == "b"


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
def test_the_scheme_is_case_insensitive(client: FlaskClient, scheme: str) -> None:
    assert client.get("/api/queue/count", headers={"Authorization": f"{scheme} {TOKEN}"}).status_code == 200


@pytest.mark.parametrize(
    "header",
    [
        "",
        "Bearer",
        "Bearer ",
        TOKEN,
        f"Basic {TOKEN}",
        f"Bearer {TOKEN}x",
        f"Bearer {TOKEN[:-1]}",
        f"Bearer {TOKEN.upper()}",
        "Bearer \xe9\xff\x80",
        "Bearer é",
        "Bearer " + "x" * 5000,
        "\xa0Bearer\xa0",
        'Digest username="a", realm=',
        "Basic %%%",
    ],
)
def test_a_wrong_or_malformed_header_is_401(client: FlaskClient, header: str) -> None:
    raw = header.encode("latin-1").decode("latin-1")
    assert client.get("/api/queue/count", environ_overrides={"HTTP_AUTHORIZATION": raw}).status_code == 401
    assert client.get("/", environ_overrides={"HTTP_AUTHORIZATION": raw}).status_code == 401


@pytest.mark.parametrize("path", ["/healthz", "/static/css/base.css", "/static/js/client.js", "/login"])
def test_health_static_files_and_the_sign_in_page_are_open(client: FlaskClient, path: str) -> None:
    assert client.get(path).status_code == 200


@pytest.mark.parametrize("path", ["/", "/q/jobs", "/no/such/page"])
def test_pages_ask_for_the_token(client: FlaskClient, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 401
    assert 'name="token"' in answer.text


def test_signing_in_leads_to_the_requested_page(client: FlaskClient) -> None:
    assert 'name="to" value="/q/jobs"' in client.get("/q/jobs").text
    answer = sign_in(client, to="/q/jobs")
    assert (answer.status_code, answer.headers["Location"]) == (303, "/q/jobs")
    assert client.get("/q/jobs").status_code == 200
    assert client.get("/api/queue/jobs/count").status_code == 200


@pytest.mark.parametrize(
    "to",
    [
        "//evil.test/q/x",
        "https://evil.test/",
        "/\\evil.test",
        "/q/../../x",
        "/q/a\r\nSet-Cookie: a=b",
        "",
        "/api/queue/pop",
        "/api/queue/count",
        "/login",
    ],
)
def test_signing_in_never_leads_to_another_site(client: FlaskClient, to: str) -> None:
    assert sign_in(client, to=to).headers["Location"] == "/"


def test_a_wrong_token_starts_no_session_and_shows_an_error(client: FlaskClient) -> None:
    for wrong in ("", "x", TOKEN + " ", "é"):
        answer = sign_in(client, wrong)
        assert answer.status_code == 401
        assert "Set-Cookie" not in answer.headers
        assert 'role="alert"' in answer.text
    assert client.get("/").status_code == 401


def cookie_of(answer: TestResponse) -> str:
    return answer.headers["Set-Cookie"]


def session_of(answer: TestResponse) -> tuple[str, str]:
    """Return the name and the value of the session cookie in an answer."""
    [(name, cookie)] = SimpleCookie(cookie_of(answer)).items()
    return name, cookie.value


def test_the_cookie_is_kept_from_scripts_and_other_sites(client: FlaskClient) -> None:
    cookie = cookie_of(sign_in(client))
    assert "HttpOnly" in cookie and "SameSite=Strict" in cookie and "Secure" not in cookie
    assert TOKEN not in cookie
    answer = client.post("/login", data={"token": TOKEN}, base_url="https://localhost")
    assert "Secure" in cookie_of(answer)


def test_a_session_is_valid_in_other_workers_and_ends_with_the_token(client: FlaskClient, client_of: ClientOf) -> None:
    name, value = session_of(sign_in(client))
    for token, status in [(TOKEN, 200), ("another token", 401)]:
        other = client_of(token)
        other.set_cookie(name, value)
        assert other.get("/").status_code == status


@pytest.mark.parametrize("value", ["in", "in.x.y", "", "é", "\x00", "in." + "A" * 40])
def test_a_forged_session_is_invalid(client: FlaskClient, value: str) -> None:
    name, _ = session_of(sign_in(client))
    client.set_cookie(name, value)
    assert client.get("/").status_code == 401


def test_signing_out_ends_the_session(client: FlaskClient) -> None:
    sign_in(client)
    assert re.search(r'action="/logout"', client.get("/").text)
    assert client.post("/logout").status_code == 303
    assert client.get("/").status_code == 401


def test_another_site_can_neither_sign_in_nor_out(client: FlaskClient) -> None:
    foreign = {"Sec-Fetch-Site": "cross-site"}
    assert client.post("/login", data={"token": TOKEN}, headers=foreign).status_code == 403
    sign_in(client)
    assert client.post("/logout", headers=foreign).status_code == 403
    assert client.post("/api/queue/push", data={"message": "a"}, headers=foreign).status_code == 403


def test_without_a_token_in_the_settings_none_is_required(client_of: ClientOf) -> None:
    client = client_of("")
    assert client.get("/").status_code == 200
    assert "/logout" not in client.get("/").text
    assert client.get("/login").headers["Location"] == "/"
    assert sign_in(client, "").status_code == 401
    client.set_cookie("queue_session", "anything")
    assert client.get("/").status_code == 200


def test_a_malformed_sign_in_is_refused(client: FlaskClient) -> None:
    for body, kind in [
        (b"\xff\xfe", "application/x-www-form-urlencoded"),
        (b"{", "application/json"),
        (b"[]", "text/xml"),
    ]:
        assert client.post("/login", data=body, content_type=kind).status_code in (400, 415)


def test_a_token_in_an_address_is_refused_and_signs_nobody_in(client: FlaskClient) -> None:
    for body in ({}, {"token": TOKEN}):
        answer = client.post(f"/login?token={TOKEN}", data=body)
        assert answer.status_code == 400
        assert "Set-Cookie" not in answer.headers
        assert TOKEN not in answer.text
    assert client.get("/").status_code == 401


def test_a_token_can_be_a_number_in_json(client: FlaskClient, client_of: ClientOf) -> None:
    assert client.post("/login", json={"token": 12345678}).status_code == 401
    assert client_of("12345678").post("/login", json={"token": 12345678}).status_code == 303


def test_an_unknown_field_of_a_sign_in_is_refused(client: FlaskClient) -> None:
    assert client.post("/login", data={"token": TOKEN, "remember": "1"}).status_code == 400
    assert client.post("/login?remember=1", data={"token": TOKEN}).status_code == 400
    assert client.get("/").status_code == 401
