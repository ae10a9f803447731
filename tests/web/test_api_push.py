"""push: what it answers, and where the messages land in the queue."""

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


def test_push_front_puts_popped_messages_back(api: Api) -> None:
    api.post("push", json={"messages": ["a", "b", "c"]})
    taken = api.post("pop", query_string={"max": 2}).json["messages"]
    answer = api.post("push", json={"messages": taken}, query_string={"front": 1})
    assert answer.json == {"success": True, "pushed": 2, "count": 3}
    assert api.messages() == [b"a", b"b", b"c"]


def test_push_reads_front_from_the_body_as_well(api: Api) -> None:
    api.post("push", json={"message": "a"})
    api.post("push", json={"message": "b", "front": True})
    api.post("push", "message=c&front=1", FORM)
    assert api.messages() == [b"c", b"b", b"a"]
