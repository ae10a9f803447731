"""settle over HTTP, extend of several ids, and what a failed job answers."""

import json
from typing import Any

import pytest

from tests.broker.helpers import end_leases, numbered, reserve
from tests.conftest import Api
from tests.web.helpers import FORM, JSON, check_error, counts, everything


def reserve_ids(api: Api, number: int) -> list[str]:
    api.queue.push(*numbered(number))
    return [one.id for one in reserve(api.queue, number)]


def test_a_batch_is_settled_each_for_itself(api: Api) -> None:
    late, done, with_result, again, later, dead, kept = reserve_ids(api, 7)
    end_leases(api.queue, late)
    answer = api.post(
        "settle",
        json={
            "acks": [done, {"id": with_result, "job": "j", "result": {"sum": 1.5}}],
            "releases": [again, {"id": later, "delay": 60}, {"id": dead, "dead": 1, "reason": "no", "job": "k"}, late],
            "extends": [{"id": kept, "lease": 4000}],
        },
    ).json
    assert answer == {"success": True, "acked": 2, "released": 3, "dead": 1, "extended": 1, "stale": [late]}
    assert (counts(api), api.get("count").json["delayed"]) == ({"count": 2, "reserved": 1, "dead": 1}, 1)
    result, failure = (api.get("result", query_string={"job": job}).json for job in "jk")
    assert (result["result"], "failed" in result) == ('{"sum":1.5}', False)
    assert failure == {"success": True, "job": "k", "failed": "no", "at": failure["at"]}


def test_curl_settles_without_a_content_type(api: Api) -> None:
    [id] = reserve_ids(api, 1)
    assert api.post("settle", f'{{"acks": ["{id}"]}}', FORM).json["acked"] == 1


HELD = "the id that is held"
BAD: list[tuple[Any, str, str]] = [
    ({}, "bad_parameter", "acks"),
    ({"acks": [], "releases": None}, "bad_parameter", "acks"),
    ({"acks": HELD}, "bad_parameter", "acks"),
    ({"acks": [HELD, 7]}, "bad_parameter", "acks[1]"),
    ({"acks": [HELD, None]}, "bad_parameter", "acks[1]"),
    ({"acks": [HELD, ""]}, "bad_parameter", "acks[1].id"),
    ({"acks": [HELD, {}]}, "bad_parameter", "acks[1].id"),
    ({"acks": [HELD, HELD]}, "bad_parameter", "acks"),
    ({"acks": [HELD], "extends": [HELD]}, "bad_parameter", "acks"),
    ({"acks": [HELD, {"id": "a", "job": "j"}]}, "bad_parameter", "acks[1]"),
    ({"acks": [HELD, {"id": "a", "result": "r"}]}, "bad_parameter", "acks[1]"),
    ({"acks": [HELD, {"id": "a", "job": "a b", "result": "r"}]}, "bad_parameter", "acks[1].job"),
    ({"acks": [HELD, {"id": "a", "job": "j", "result": ""}]}, "empty_message", "acks[1].result"),
    ({"acks": [HELD, {"id": "a", "lease": 30}]}, "unknown_parameter", "acks[1]"),
    ({"acks": [HELD], "releases": [{"id": "a", "delay": -1}]}, "bad_parameter", "releases[0].delay"),
    ({"acks": [HELD], "releases": [{"id": "a", "dead": True, "delay": 1}]}, "bad_parameter", "releases[0]"),
    ({"acks": [HELD], "releases": [{"id": "a", "reason": "x" * 1001}]}, "bad_parameter", "releases[0].reason"),
    ({"acks": [HELD], "extends": [{"id": "a", "lease": 0}]}, "bad_parameter", "extends[0].lease"),
    ({"acks": [HELD], "extends": ["e"] * 1001}, "bad_parameter", "extends"),
    ({"acks": [HELD], "extends": [str(number) for number in range(1000)]}, "bad_parameter", "acks"),
]


@pytest.mark.parametrize(("body", "error", "parameter"), BAD, ids=[str(body)[:60] for body, _, _ in BAD])
def test_a_bad_batch_changes_nothing(api: Api, body: dict[str, Any], error: str, parameter: str) -> None:
    [id] = reserve_ids(api, 1)
    before = everything(api.client)
    text = json.dumps(body).replace(HELD, id)
    assert check_error(api.post("settle", text, JSON), 400, error)["parameter"] == parameter
    assert everything(api.client) == before


def test_a_batch_as_a_form_is_refused(api: Api) -> None:
    [id] = reserve_ids(api, 1)
    check_error(api.post("settle", {"acks": id}), 400, "bad_parameter")
    check_error(api.post(f"settle?acks={id}", "{}", JSON), 400, "bad_parameter")
    assert counts(api) == {"count": 0, "reserved": 1, "dead": 0}


def test_a_producer_learns_that_its_job_failed(api: Api) -> None:
    one, two = reserve_ids(api, 2)
    assert api.post("release", json={"id": one, "dead": True, "reason": "no", "job": "j"}).json["dead"] == 1
    assert api.get("result?job=j").json["failed"] == "no"
    check_error(api.post("release", json={"ids": [two], "dead": True, "job": "j"}), 400, "bad_parameter")
    assert counts(api) == {"count": 0, "reserved": 1, "dead": 1}


def test_leases_are_extended_together(api: Api) -> None:
    ids = reserve_ids(api, 2)
    deadline = api.post("extend", json={"ids": ids, "lease": 4000}).json["deadline"]
    assert [one["deadline"] for one in api.get("reserved").json["messages"]] == [deadline] * 2
    assert check_error(api.post("extend", json={"ids": [*ids, "gone"]}), 409, "stale")["stale"] == ["gone"]
    check_error(api.post("extend", json={"lease": 9}), 400, "bad_parameter")
