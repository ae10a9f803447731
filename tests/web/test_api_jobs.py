"""What jobs need: delays, retries, reasons, lists of reserved and delayed messages, search, pause and results."""

import json
import time
from typing import Any

import pytest

from tests.broker.helpers import end_leases, numbered, reserve
from tests.conftest import Api
from tests.web.helpers import FORM, NDJSON, TEXT, check_error, counts, everything, push

PAUSED = {
    "success": False,
    "error": "paused",
    "message": "The queue is paused: no messages are delivered until it is resumed.",
}


def held(api: Api, operation: str, **query: Any) -> list[dict[str, Any]]:
    answer = api.get(operation, query_string=query).json
    assert answer["success"] is True
    return list(answer["messages"])


# --- delays


def test_a_push_can_be_delayed(api: Api) -> None:
    one = api.post("push", {"message": "a", "delay": "100"}).json
    many = api.post("push", json={"messages": ["b", "c"], "delay": 50.5}).json
    assert one == {"success": True, "message": "a", "count": 0, "id": one["id"]}
    assert many == {"success": True, "pushed": 2, "count": 0, "ids": many["ids"]}
    listed = held(api, "delayed")
    assert [each["id"] for each in listed] == [*many["ids"], one["id"]]
    assert [each["message"] for each in listed] == ["b", "c", "a"]
    assert listed[0].keys() == {"id", "message", "deliveries", "deadline"}
    assert abs(listed[2]["deadline"] - time.time() - 100) < 50
    assert api.get("count").json["delayed"] == 3


def test_a_delayed_push_takes_a_key_and_a_delay_of_0_is_an_ordinary_push(api: Api) -> None:
    headers = {"Idempotency-Key": "k"}
    first = api.post("push", json={"message": "a", "delay": 9}, headers=headers).json
    assert api.post("push", json={"message": "a", "delay": 9}, headers=headers).json == first
    check_error(api.post("push", json={"message": "a", "delay": 8}, headers=headers), 409, "conflict")
    check_error(api.post("push", json={"message": "a"}, headers=headers), 409, "conflict")
    assert api.post("push", json={"message": "b", "delay": 0}).json == {"success": True, "message": "b", "count": 1}
    assert counts(api) == {"count": 1, "reserved": 0, "dead": 0}


def test_a_delay_that_contradicts_another_parameter_is_refused(named_api: Api) -> None:
    check_error(named_api.post("push", json={"message": "a", "delay": 9, "front": True}), 400, "bad_parameter")
    check_error(named_api.post("push?each=line&delay=9", "a\nb", TEXT), 400, "bad_parameter")
    check_error(named_api.post("push?delay=9", '"a"\n', NDJSON), 400, "bad_parameter")
    push(named_api, "a")
    id = named_api.post("reserve").json["id"]
    check_error(named_api.post("release", {"id": id, "delay": "9", "dead": "1"}), 400, "bad_parameter")
    assert counts(named_api) == {"count": 0, "reserved": 1, "dead": 0}


def test_a_retry_is_listed_with_its_reason_and_released_now(api: Api) -> None:
    push(api, "a", "b")
    id = api.post("reserve").json["id"]
    answer = api.post("release", {"id": id, "delay": "100", "reason": "žluť & co"}).json
    assert answer == {"success": True, "released": 1, "dead": 0}
    check_error(api.post("ack", {"id": id}), 409, "stale")
    [one] = held(api, "delayed", preview=5)
    assert (one["preview"], one["bytes"], one["deliveries"], one["reason"]) == ("a", 1, 1, "žluť & co")
    assert abs(one["failed"] - time.time()) < 50
    api.post("release", {"id": one["id"]})
    assert api.messages() == [b"a", b"b"]


def test_reserved_messages_are_listed_and_buried_by_anyone(api: Api) -> None:
    push(api, "a", "b", "c")
    api.post("reserve", {"lease": "500", "max": "2"})
    api.post("reserve", {"lease": "100"})
    listed = held(api, "reserved")
    assert [(each["message"], each["deliveries"]) for each in listed] == [("c", 1), ("a", 1), ("b", 1)]
    assert held(api, "reserved", offset=1, limit=1) == [listed[1]]
    lines = api.get("reserved", headers={"Accept": NDJSON}).text.splitlines()
    assert [json.loads(line) for line in lines] == listed
    answer = api.post("release", {"ids": ",".join(each["id"] for each in listed[:2]), "dead": "1", "reason": "no"}).json
    assert answer == {"success": True, "released": 2, "dead": 2}
    assert counts(api) == {"count": 0, "reserved": 1, "dead": 2}


def test_long_lists_come_whole(named_api: Api) -> None:
    named_api.queue.push_later(100, numbered(1234))
    assert [each["message"] for each in held(named_api, "delayed")] == [str(number) for number in range(1234)]
    assert len(held(named_api, "delayed", offset=1200)) == 34


# --- reasons


def test_details_say_why_a_message_failed_or_died(api: Api) -> None:
    push(api, "again", "bad", "new")
    again, bad = (one.id for one in reserve(api.queue, 2))
    api.post("release", {"id": bad, "dead": "1", "reason": "ValueError: bad"})
    end_leases(api.queue, again)
    failed, new = api.get("all?details=1").json["messages"]
    assert failed == {"message": "again", "deliveries": 1, "reason": "lease expired", "failed": failed["failed"]}
    assert new == {"message": "new", "deliveries": 0}
    dead = api.of(f"{api.name}.dead")
    [died] = dead.get("all?details=1&preview=2").json["messages"]
    assert died == {"preview": "ba", "bytes": 3, "deliveries": 1, "reason": "ValueError: bad", "died": died["died"]}
    assert abs(died["died"] - time.time()) < 50
    lines = dead.get("all?details=1", headers={"Accept": NDJSON}).text
    assert json.loads(lines)["reason"] == "ValueError: bad"


def test_details_of_many_messages_come_whole(named_api: Api) -> None:
    named_api.queue.push(*numbered(1500))
    found = named_api.get("all?details=1&offset=100").json["messages"]
    assert [each["message"] for each in found] == [str(number) for number in range(100, 1500)]


# --- search


def test_messages_that_contain_a_text_are_found_with_their_positions(api: Api) -> None:
    push(api, "Order 1", "other", "order 2", "ORDER 3")
    answer = api.get("all", query_string={"contains": "order"}).json
    found = [{"position": 0, "message": "Order 1"}, {"position": 2, "message": "order 2"}]
    assert answer == {"success": True, "messages": [*found, {"position": 3, "message": "ORDER 3"}], "count": 4}
    assert api.get("all?contains=order&limit=2").json["messages"] == found
    assert api.get("all?contains=order&offset=2&limit=1&preview=3&details=1").json["messages"] == [
        {"position": 2, "preview": "ord", "bytes": 7, "deliveries": 0}
    ]
    assert api.get("all?contains=order", headers={"Accept": NDJSON}).text == '"Order 1"\n"order 2"\n"ORDER 3"\n'
    assert api.get("all?contains=nothing").json == {"success": True, "messages": [], "count": 4}


def test_a_move_takes_the_messages_that_contain_a_text(api: Api) -> None:
    push(api, "Order 1", "other", "order 2", "ORDER 3")
    to = api.of(api.name + "x")
    assert api.post("move", {"to": to.name, "contains": "order", "max": "2"}).json["moved"] == 2
    assert (api.messages(), to.messages()) == ([b"other", b"ORDER 3"], [b"Order 1", b"order 2"])
    assert api.post("move", {"to": to.name, "contains": "none"}).json["moved"] == 0
    check_error(api.post("move", {"to": api.name, "contains": "other"}), 400, "same_queue")


# --- pause


def test_a_paused_queue_says_so_and_delivers_nothing(api: Api) -> None:
    push(api, "a")
    assert api.post("pause").json == {"success": True, "paused": True}
    assert api.post("pop").json == api.post("reserve").json == PAUSED
    assert api.post("pop?max=5").json == api.post("reserve?max=5").json == {**PAUSED, "messages": []}
    assert api.post("pop?wait=0.05").json == PAUSED
    assert api.post("pop", headers={"Idempotency-Key": "k"}).json == PAUSED
    text = api.post("pop", headers={"Accept": "text/plain"})
    assert (text.status_code, text.data) == (204, b"")
    assert api.get("count").json["paused"] is True
    assert api.messages() == [b"a"]
    assert api.post("resume").json == {"success": True, "paused": False}
    assert api.post("pop", headers={"Idempotency-Key": "k"}).json["message"] == "a"


def test_a_paused_queue_is_listed_even_if_it_is_empty(named_api: Api) -> None:
    named_api.post("pause")
    [queue] = named_api.http.get("/api/queues").json["queues"]
    assert (queue["name"], queue["count"], queue["paused"]) == (named_api.name, 0, True)


# --- settings


NO_SETTINGS = {"success": True, "at_once": 0, "per_second": 0, "max_deliveries": 0}
LIMITED = {
    "success": False,
    "error": "limited",
    "message": "The limits of the queue are reached: no messages are delivered until they allow it.",
}


def test_the_settings_are_changed_one_by_one_and_removed_by_0_or_an_empty_text(api: Api) -> None:
    assert api.get("settings").json == NO_SETTINGS
    changed = {"success": True, "at_once": 100_000, "per_second": 0.25, "max_deliveries": 1}
    assert api.post("settings", json={"at_once": 100_000, "max_deliveries": 1}).json == {**changed, "per_second": 0}
    assert api.post("settings", {"per_second": "0.25"}).json == api.get("settings").json == changed
    assert api.post("settings", {"at_once": "", "per_second": "0"}).json == {**NO_SETTINGS, "max_deliveries": 1}
    assert api.post("settings?max_deliveries=").json == api.post("settings").json == NO_SETTINGS


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("at_once", value) for value in ("-1", "100001", "1.5", "many", "1_0")),
        *(("per_second", value) for value in ("-0.1", "100000.1", "nan", "inf", "fast")),
        *(("max_deliveries", value) for value in ("-1", "1001", "0.5")),
    ],
)
def test_a_setting_out_of_range_is_refused_and_none_is_changed(api: Api, name: str, value: str) -> None:
    others = {other: "1" for other in ("at_once", "per_second", "max_deliveries") if other != name}
    answer = api.post("settings", {**others, name: value})
    assert (answer.status_code, answer.json["error"], answer.json["parameter"]) == (400, "bad_parameter", name)
    assert api.get("settings").json == NO_SETTINGS


@pytest.mark.parametrize("rate", [5e-324, 1e-9])
def test_the_smallest_rate_allows_one_message_and_no_other_for_years(api: Api, rate: float) -> None:
    push(api, "a", "b")
    api.post("settings", json={"per_second": rate})
    assert api.post("pop").json["message"] == "a"
    assert api.post("pop").json["retry_after"] > 1e6


def test_a_limited_queue_says_so_and_when_to_try_again(api: Api) -> None:
    push(api, "a", "b")
    api.post("settings", {"per_second": 0.01})
    assert api.post("reserve").json["message"] == "a"
    for operation in ("pop", "reserve", "reserve?wait=0.05", "pop?max=5", "reserve?max=5"):
        answer = api.post(operation).json
        assert 90 < answer.pop("retry_after") <= 100
        assert answer == {**LIMITED, **({"messages": []} if "max" in operation else {})}
    text = api.post("pop", headers={"Accept": "text/plain"})
    assert (text.status_code, text.data) == (204, b"")
    assert api.messages() == [b"b"]


# --- results


def test_a_result_is_stored_and_returned(api: Api) -> None:
    nothing = api.get("result?job=j").json
    assert (nothing["success"], nothing["error"]) == (False, "no_result")
    assert api.post("result", json={"job": "j", "result": {"n": 1.10}, "keep": 100}).json == {
        "success": True,
        "job": "j",
    }
    for _ in range(2):
        answer = api.get("result?job=j&wait=9").json
        assert answer == {"success": True, "job": "j", "result": '{"n":1.1}', "at": answer["at"]}
    assert abs(answer["at"] - time.time()) < 50
    api.post("result", b"job=j&result=\xff", FORM)
    assert counts(api) == {"count": 0, "reserved": 0, "dead": 0}


def test_an_ack_stores_a_result_and_a_late_one_does_not(api: Api) -> None:
    push(api, "a")
    late = api.post("reserve").json["id"]
    end_leases(api.queue, late)
    id = api.post("reserve").json["id"]
    check_error(api.post("ack", {"id": late, "job": "j", "result": "late"}), 409, "stale")
    assert api.get("result?job=j").json["error"] == "no_result"
    assert api.post("ack", {"id": id, "job": "j", "result": "done"}).json == {"success": True, "acked": 1}
    assert api.get("result?job=j").json["result"] == "done"


@pytest.mark.parametrize(
    "fields",
    [
        {"job": "j"},
        {"result": "x"},
        {"ids": "a,b", "id": None, "job": "j", "result": "x"},
        {"job": "a b", "result": "x"},
    ],
)
def test_an_incomplete_result_acks_nothing(named_api: Api, fields: dict[str, Any]) -> None:
    push(named_api, "a")
    id = named_api.post("reserve").json["id"]
    before = everything(named_api.client)
    sent = {key: value for key, value in {"id": id, **fields}.items() if value is not None}
    check_error(named_api.post("ack", sent), 400, "bad_parameter")
    check_error(named_api.post("ack", {"id": id, "job": "j", "result": ""}), 400, "empty_message")
    assert everything(named_api.client) == before


def test_a_result_has_the_limits_of_a_message(named_api: Api) -> None:
    small = named_api.with_settings(max_message_bytes=10)
    check_error(small.post("result", {"job": "j", "result": "x" * 11}), 413, "message_too_large")
    assert named_api.client.keys() == []
