"""pop: what it answers, and which clients get the message as text."""

from typing import Any

import pytest

from tests.conftest import Api
from tests.web.helpers import BYTES, EMPTY, FORM, TEXT


def test_pop_answers_the_oldest_message_then_empty(api: Api) -> None:
    api.post("push", json={"messages": ["a", "b"]})
    for message in "ab":
        answer = api.post("pop")
        assert (answer.status_code, answer.json) == (200, {"success": True, "message": message})
    answer = api.post("pop")
    assert (answer.status_code, answer.json) == (200, EMPTY)


def test_pop_with_max_answers_a_list_of_any_length(api: Api) -> None:
    api.post("push", json={"messages": ["a", "b", "c"]})
    assert api.post("pop", query_string={"max": 2}).json == {"success": True, "messages": ["a", "b"]}
    assert api.post("pop", query_string={"max": 1}).json == {"success": True, "messages": ["c"]}
    answer = api.post("pop", query_string={"max": 1000})
    assert (answer.status_code, answer.json) == (200, {**EMPTY, "messages": []})


@pytest.mark.parametrize(
    "request_of_two",
    [
        {"query_string": {"max": "2"}},
        {"json": {"max": 2}},
        {"json": {"max": "2"}},
        {"data": "max=2", "kind": FORM},
        {"data": '{"max": 2}', "kind": FORM},
    ],
    ids=["query", "JSON", "JSON text", "form", "JSON with curl's type"],
)
def test_pop_reads_max_from_query_and_body(api: Api, request_of_two: dict[str, Any]) -> None:
    api.post("push", json={"messages": ["a", "b", "c"]})
    assert api.post("pop", **request_of_two).json["messages"] == ["a", "b"]


@pytest.mark.parametrize(
    ("accept", "plain"),
    [
        ("text/plain", True),
        ("text/plain, application/json;q=0.5", True),
        ("text/*", True),
        ("Text/Plain", True),
        ("application/json", False),
        ("*/*", False),
        ("", False),
        ("application/json, text/plain", False),
        ("image/png", False),
        (";;;q=,/*\\", False),
        ("text/plain;q=0", False),
        ("text/plain;q=nonsense", False),
    ],
    ids=str,
)
def test_pop_answers_the_message_itself_to_a_client_that_prefers_text(api: Api, accept: str, plain: bool) -> None:
    api.post("push", json={"message": "žluťoučký\n"})
    answer = api.post("pop", headers={"Accept": accept})
    if plain:
        assert (answer.data.decode(), answer.content_type) == ("žluťoučký\n", "text/plain; charset=utf-8")
    else:
        assert answer.json == {"success": True, "message": "žluťoučký\n"}
    answer = api.post("pop", headers={"Accept": accept})
    assert (answer.status_code, answer.data) == (204, b"") if plain else answer.json == EMPTY


def test_pop_answers_bytes_as_bytes_to_a_client_that_prefers_text(api: Api) -> None:
    api.post("push", b"\xff\x00\n", BYTES)
    answer = api.post("pop", headers={"Accept": TEXT})
    assert (answer.data, answer.content_type) == (b"\xff\x00\n", BYTES)
