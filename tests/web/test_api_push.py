"""The push verb: what it answers, and where the messages land in the queue."""

import pytest

from tests.conftest import Api
from tests.web.helpers import FORM


def test_push_answers_the_message_and_the_count(api: Api) -> None:
    for count in (1, 2):
        answer = api.post("push", json={"message": "hello"})
        assert (answer.status_code, answer.json) == (200, {"success": True, "message": "hello", "count": count})
    assert api.messages() == [b"hello", b"hello"]


def test_push_many_answers_how_many_and_keeps_their_order(api: Api) -> None:
    api.post("push", json={"message": "a"})
    answer = api.post("push", json={"messages": ["b", {"c": [1.10]}, 3]})
    assert (answer.status_code, answer.json) == (200, {"success": True, "pushed": 3, "count": 4})
    assert api.messages() == [b"a", b"b", b'{"c":[1.1]}', b"3"]


def test_push_many_of_one_is_still_many(api: Api) -> None:
    assert api.post("push", json={"messages": ["a"]}).json == {"success": True, "pushed": 1, "count": 1}


def test_push_next_puts_a_popped_message_back(api: Api) -> None:
    api.post("push", json={"messages": ["a", "b", "c"]})
    taken = api.post("pop", query_string={"max": 2}).json["messages"]
    answer = api.post("push", json={"messages": taken}, query_string={"front": 1})
    assert answer.json == {"success": True, "pushed": 2, "count": 3}
    assert api.messages() == [b"a", b"b", b"c"]


@pytest.mark.parametrize(
    ("value", "first"), [("1", "x"), ("true", "x"), ("0", "a"), ("false", "a")], ids=lambda value: str(value)
)
def test_push_next_is_a_flag(api: Api, value: str, first: str) -> None:
    api.post("push", json={"message": "a"})
    api.post("push", json={"message": "x"}, query_string={"front": value})
    assert api.post("pop").json["message"] == first


@pytest.mark.parametrize("value", ["", "2", "yes", "-1", "TRUE"])
def test_push_refuses_a_next_that_is_not_a_flag(api: Api, value: str) -> None:
    answer = api.post("push", json={"message": "a"}, query_string={"front": value})
    assert (answer.status_code, answer.json["error"], answer.json["parameter"]) == (400, "bad_parameter", "front")
    assert api.messages() == []


def test_push_reads_next_from_the_body_as_well(api: Api) -> None:
    api.post("push", json={"message": "a"})
    api.post("push", json={"message": "b", "front": True})
    api.post("push", "message=c&front=1", FORM)
    assert api.messages() == [b"c", b"b", b"a"]
