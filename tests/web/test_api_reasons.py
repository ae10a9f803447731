"""reasons, and the parameter `reason` of all and move."""

import json
import time
from typing import Any

import pytest

from tests.conftest import Api
from tests.web.helpers import check_error, push


def fail(api: Api, *reasons: str, **release: Any) -> list[str]:
    """Push a message for each reason and let it fail for that reason; the queue must be empty."""
    texts = [f"{number} {reason}" for number, reason in enumerate(reasons)]
    push(api, *texts)
    reserved = api.post("reserve", json={"max": len(reasons)}).json["messages"]
    for message, reason in zip(reserved, reasons, strict=True):
        assert api.post("release", json={"id": message["id"], "reason": reason, **release}).json["success"]
    return texts


def test_reasons_answers_groups_with_an_example(api: Api) -> None:
    fail(api, "timeout after 30 s", "no user 6f1c9a70", "timeout after 7 s", dead=True)
    for queue in (api, api.of(api.name + ".dead")):
        answer = queue.get("reasons").json
        first, second = answer["reasons"]
        assert (answer["success"], answer["complete"]) == (True, True)
        assert {name: first[name] for name in ("reason", "count")} == {"reason": "timeout after # s", "count": 2}
        assert (second["reason"], second["count"], second["example"]) == ("no user <id>", 1, "no user 6f1c9a70")
        assert time.time() - 50 < first["first"] <= first["last"]


def test_a_queue_without_failures_has_no_reasons(named_api: Api) -> None:
    push(named_api, "a")
    assert named_api.get("reasons").json == {"success": True, "reasons": [], "complete": True}


def test_all_lists_only_messages_that_failed_for_the_reason(api: Api) -> None:
    texts = fail(api, "timeout 1", "other", "timeout 2", dead=True)
    dead = api.of(api.name + ".dead")
    for reason in ("timeout #", "timeout 1"):
        answer = dead.get("all", query_string={"reason": reason}).json
        assert answer["messages"] == [{"position": 0, "message": texts[0]}, {"position": 2, "message": texts[2]}]
        assert answer["count"] == 3
    both = {"reason": "timeout #", "contains": "2 time", "preview": 1, "details": 1}
    [found] = dead.get("all", query_string=both).json["messages"]
    assert (found["position"], found["preview"], found["deliveries"], found["reason"]) == (2, "2", 1, "timeout 2")
    assert "died" in found
    assert "failed" not in found
    lines = dead.get("all", query_string={"reason": "other"}, headers={"Accept": "application/x-ndjson"})
    assert [json.loads(line) for line in lines.text.splitlines()] == [texts[1]]
    assert dead.get("all", query_string={"reason": "tim"}).json["messages"] == []


def test_move_moves_only_messages_that_failed_for_the_reason(api: Api) -> None:
    texts = fail(api, "timeout 1", "other", "timeout 2", "timeout 3", dead=True)
    dead = api.of(api.name + ".dead")
    answer = dead.post("move", json={"to": api.name, "reason": "timeout #", "max": 2}).json
    assert (answer["moved"], api.messages()) == (2, [texts[0].encode(), texts[2].encode()])
    assert dead.post("move", {"to": api.name, "reason": "timeout 9", "contains": "3"}).json["moved"] == 1
    assert dead.messages() == [texts[1].encode()]
    assert dead.post("restore", {"undo": answer["undo"]}).json["restored"] == 2
    assert dead.messages() == [text.encode() for text in (texts[0], texts[2], texts[1])]


def test_remove_removes_only_messages_that_failed_for_the_reason(api: Api) -> None:
    texts = fail(api, "timeout 1", "other", "timeout 2", dead=True)
    dead = api.of(api.name + ".dead")
    answer = dead.post("remove", json={"reason": "timeout #", "contains": "2 "}).json
    assert (answer["removed"], len(dead.messages())) == (1, 2)
    assert dead.post("remove", {"reason": "timeout #"}).json["removed"] == 1
    assert dead.messages() == [texts[1].encode()]
    assert dead.post("restore", {"undo": answer["undo"]}).json["restored"] == 1
    assert [one["count"] for one in api.get("reasons").json["reasons"]] == [1, 1]
    both = {"reason": "other", "messages": [{"position": 0, "message": texts[1]}]}
    assert check_error(dead.post("remove", json=both), 400, "bad_parameter")["parameter"] == "messages"


def test_a_dead_letter_that_was_moved_back_shows_its_history(api: Api) -> None:
    fail(api, "why", dead=True)
    api.of(api.name + ".dead").post("move", {"to": api.name})
    [waiting] = api.get("all", query_string={"details": 1}).json["messages"]
    assert (waiting["deliveries"], waiting["reason"], "failed" in waiting) == (1, "why", False)
    reserved = api.post("reserve").json
    [held] = api.get("reserved").json["messages"]
    assert (reserved["deliveries"], held["deliveries"], held["reason"]) == (1, 1, "why")
    assert held["died"] == waiting["died"]
    api.post("release", {"id": reserved["id"], "reason": "again", "delay": "60"})
    [delayed] = api.get("delayed").json["messages"]
    assert (delayed["deliveries"], delayed["reason"], delayed["died"]) == (1, "again", waiting["died"])
    assert delayed["failed"] >= delayed["died"]


@pytest.mark.parametrize(("operation", "fields"), [("all", {}), ("move", {"to": "other"}), ("remove", {})])
@pytest.mark.parametrize("reason", ["", "x" * 1001])
def test_a_reason_has_1_to_1000_characters(named_api: Api, operation: str, fields: dict[str, str], reason: str) -> None:
    call = named_api.get if operation == "all" else named_api.post
    answer = call(operation, query_string={"reason": reason, **fields})
    assert check_error(answer, 400, "bad_parameter")["parameter"] == "reason"
