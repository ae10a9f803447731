"""remove, clear, restore and move."""

from collections.abc import Iterator
from typing import Any

import pytest
import redis

from tests.conftest import Api
from tests.web.helpers import check_error, push
from web.errors import ApiError
from web.operations.schemas import SHARED
from web.operations.tidying import add_up


def test_remove_answers_the_message_it_removed(api: Api) -> None:
    push(api, "a", "b", "c")
    answer = api.post("remove", json={"position": 1, "message": "b"})
    assert (answer.status_code, answer.json) == (200, {"success": True, "message": "b"})
    assert api.post("remove", {"position": "1", "message": "c"}).json == {"success": True, "message": "c"}
    assert api.messages() == [b"a"]


@pytest.mark.parametrize(
    ("position", "message"), [(0, "b"), (1, "a"), (2, "a"), (10**12, "a"), (0, {"base64": "/w=="})]
)
def test_remove_of_a_message_that_is_not_there_is_409(api: Api, position: int, message: Any) -> None:
    push(api, "a", "b")
    check_error(api.post("remove", json={"position": position, "message": message}), 409, "stale")
    assert api.messages() == [b"a", b"b"]


def test_remove_of_bytes_and_of_json(api: Api) -> None:
    api.post("push", json={"messages": [{"base64": "/wA="}, {"a": [1]}]})
    assert api.post("remove", json={"position": 1, "message": '{"a":[1]}'}).json["message"] == '{"a":[1]}'
    answer = api.post("remove", json={"position": 0, "message": {"base64": "/wA="}})
    assert answer.json == {"success": True, "message": {"base64": "/wA="}}
    assert api.messages() == []


def test_a_removal_can_be_undone_once(api: Api) -> None:
    push(api, "a", "b", "c")
    answer = api.post("remove", json={"position": 1, "message": "b", "undo": True}).json
    assert set(answer) == {"success", "message", "undo"}
    assert api.post("restore", json={"undo": answer["undo"]}).json == {"success": True, "restored": 1}
    assert api.messages() == [b"a", b"b", b"c"]
    check_error(api.post("restore", json={"undo": answer["undo"]}), 409, "stale")


def test_many_messages_that_contain_a_text_are_removed_and_put_back_to_the_front(api: Api) -> None:
    push(api, "a needle", "b", "Needle c")
    answer = api.post("remove", json={"contains": "NEEDLE"}).json
    assert (answer["success"], answer["removed"], set(answer)) == (True, 2, {"success", "removed", "undo"})
    assert api.messages() == [b"b"]
    assert api.post("restore", {"undo": answer["undo"]}).json == {"success": True, "restored": 2}
    assert api.messages() == [b"a needle", b"Needle c", b"b"]
    nothing = {"success": True, "removed": 0, "undo": None}
    assert api.post("remove", query_string={"contains": "none"}).json == nothing


def test_of_a_list_of_messages_those_that_are_there_are_removed(api: Api) -> None:
    api.post("push", json={"messages": ["a", {"base64": "/wA="}, "c", "c", {"x": 1}]})
    placed = [(4, {"x": 1}), (0, "b"), (1, {"base64": "/wA="}), (2, "c"), (2, "c"), (9, "c")]
    messages = [{"position": position, "message": message} for position, message in placed]
    answer = api.post("remove", json={"messages": messages}).json
    assert (answer["removed"], api.messages()) == (3, [b"a", b"c"])
    assert api.post("restore", {"undo": answer["undo"]}).json["restored"] == 3
    assert api.messages() == [b"\xff\x00", b"c", b'{"x":1}', b"a", b"c"]
    assert api.post("remove", json={"messages": messages[:1]}).json == {"success": True, "removed": 0, "undo": None}


@pytest.mark.parametrize(
    ("fields", "parameter"),
    [
        ({}, "position"),
        ({"position": 0}, "message"),
        ({"message": "a"}, "position"),
        ({"position": 0, "message": "a", "contains": "a"}, "contains"),
        ({"position": 0, "messages": [{"position": 0, "message": "a"}]}, "messages"),
        ({"contains": "a", "messages": [{"position": 0, "message": "a"}]}, "messages"),
        ({"contains": ""}, "contains"),
        ({"messages": []}, "messages"),
        ({"messages": "a"}, "messages"),
        ({"messages": ["a"]}, "messages"),
        ({"messages": [{"position": 0}]}, "messages"),
        ({"messages": [{"position": -1, "message": "a"}]}, "position"),
        *(({"messages": [{"position": wrong, "message": "a"}]}, "position") for wrong in (None, False, "0", 0.5)),
        ({"messages": [{"position": 0, "message": "a", "undo": 1}]}, "messages"),
        ({"messages": [{"position": 0, "message": "a"}] * 1001}, "messages"),
    ],
    ids=lambda value: str(value)[:60],
)
def test_a_removal_says_in_one_way_what_to_remove(named_api: Api, fields: dict[str, Any], parameter: str) -> None:
    push(named_api, "a")
    assert check_error(named_api.post("remove", json=fields), 400, "bad_parameter")["parameter"] == parameter
    assert named_api.messages() == [b"a"]


def test_clear_answers_an_undo_that_restore_takes_once(api: Api) -> None:
    push(api, "a", "b")
    answer = api.post("clear").json
    assert (answer["success"], answer["cleared"], set(answer)) == (True, 2, {"success", "cleared", "undo"})
    assert api.messages() == []
    push(api, "c")
    assert api.post("restore", json={"undo": answer["undo"]}).json == {"success": True, "restored": 2}
    assert api.messages() == [b"a", b"b", b"c"]
    check_error(api.post("restore", json={"undo": answer["undo"]}), 409, "stale")
    check_error(api.post("restore", json={"undo": "never"}), 409, "stale")


def test_clear_of_an_empty_queue_is_a_success(api: Api) -> None:
    assert api.post("clear").json == {"success": True, "cleared": 0, "undo": None}


def test_move_answers_how_many_and_keeps_their_order(api: Api) -> None:
    push(api, *map(str, range(2500)))
    assert api.post("move", json={"to": api.name + "x", "max": 1200}).json["moved"] == 1200
    assert api.post("move", {"to": api.name + "x"}).json["moved"] == 1300
    nothing = {"success": True, "moved": 0, "undo": None}
    assert api.post("move", query_string={"to": api.name + "x"}).json == nothing
    assert api.of(api.name + "x").messages() == [b"%d" % number for number in range(2500)]


def test_move_of_one_message(api: Api) -> None:
    api.post("push", json={"messages": ["a", {"base64": "/wA="}, "c"]})
    to = api.of(api.name + "x")
    one = {"to": to.name, "position": 1, "message": {"base64": "/wA="}}
    assert api.post("move", json=one).json["moved"] == 1
    assert api.post("move", {"to": to.name, "position": "1", "message": "c"}).json["moved"] == 1
    assert (api.messages(), to.messages()) == ([b"a"], [b"\xff\x00", b"c"])
    check_error(api.post("move", json=one), 409, "stale")
    assert check_error(api.post("move", json=one | {"to": api.name}), 400, "same_queue")["parameter"] == "to"
    assert (api.messages(), to.messages()) == ([b"a"], [b"\xff\x00", b"c"])


@pytest.mark.parametrize(
    ("fields", "parameter"),
    [
        ({"position": 0}, "message"),
        ({"message": "a"}, "position"),
        ({"position": 0, "message": "a", "max": 1}, "max"),
        ({"position": 0, "message": "a", "contains": "a"}, "contains"),
        ({"position": 0, "message": "a", "reason": "a"}, "reason"),
    ],
    ids=str,
)
def test_a_move_of_one_needs_both_its_position_and_the_message(
    named_api: Api, fields: dict[str, Any], parameter: str
) -> None:
    push(named_api, "a")
    answer = named_api.post("move", json={"to": named_api.name + "x", **fields})
    assert check_error(answer, 400, "bad_parameter")["parameter"] == parameter
    assert named_api.messages() == [b"a"]


@pytest.mark.parametrize(
    ("fields", "moved", "restored"),
    [
        ({}, "012", "012"),
        ({"max": 2}, "01", "012"),
        ({"contains": "1"}, "1", "102"),
        ({"position": 1, "message": "1"}, "1", "012"),
    ],
    ids=str,
)
def test_a_move_can_be_undone_once(api: Api, fields: dict[str, Any], moved: str, restored: str) -> None:
    push(api, *"012")
    to = api.of(api.name + "x")
    answer = api.post("move", json={"to": to.name, **fields}).json
    assert (answer["moved"], b"".join(to.messages()).decode()) == (len(moved), moved)
    assert api.post("restore", json={"undo": answer["undo"]}).json == {"success": True, "restored": len(moved)}
    assert (b"".join(api.messages()).decode(), to.messages()) == (restored, [])
    check_error(api.post("restore", json={"undo": answer["undo"]}), 409, "stale")


def test_a_move_to_the_same_queue_or_to_an_invalid_name_is_refused(api: Api) -> None:
    push(api, "a")
    assert check_error(api.post("move", json={"to": api.name}), 400, "same_queue")["parameter"] == "to"
    check_error(api.post("move", json={"to": "a b"}), 400, "bad_name")
    assert api.messages() == [b"a"]


def test_a_move_into_another_type_is_409_and_moves_nothing(api: Api) -> None:
    push(api, "a")
    api.client.set(f"queue:{api.name}x", "text")
    answer = check_error(api.post("move", json={"to": api.name + "x"}), 409, "wrong_type")
    assert (answer["moved"], type(answer["undo"])) == (0, str)
    assert api.messages() == [b"a"]


@pytest.mark.parametrize(
    ("operation", "fields"),
    [("pop", {}), ("reserve", {}), ("remove", {"position": 0, "message": "a"}), ("clear", {}),
     ("restore", {"undo": "a"}), ("move", {"to": "a"})],
)  # fmt: skip
def test_every_change_of_another_type_is_409(api: Api, operation: str, fields: dict[str, Any]) -> None:
    api.client.set(api.key, "text")
    check_error(api.post(operation, json=fields), 409, "wrong_type")
    assert api.client.get(api.key) == b"text"


@pytest.mark.parametrize("field", ["moved", "removed", "restored"])
def test_an_error_midway_has_the_number_done_in_a_documented_field(field: str) -> None:
    def batches() -> Iterator[int]:
        yield from (2, 3)
        raise redis.ConnectionError

    with pytest.raises(ApiError) as raised:
        add_up(batches(), field, undo="token")
    assert raised.value.answer().items() >= {field: 5, "undo": "token"}.items()
    assert raised.value.answer().keys() <= SHARED["Error"]["properties"].keys()
