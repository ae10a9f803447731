"""reserve, ack, release and extend, and what becomes of a message that is never acked."""

from typing import Any

import pytest

from tests.broker.helpers import end_leases
from tests.conftest import Api
from tests.web.helpers import BYTES, EMPTY, check_error, counts, push


def test_reserve_answers_the_message_with_its_id_deliveries_and_deadline(api: Api) -> None:
    push(api, "a", "b")
    answer = api.post("reserve", json={"lease": 100})
    assert answer.status_code == 200
    seconds = api.client.time()[0]
    assert set(answer.json) == {"success", "id", "message", "deliveries", "max_deliveries", "deadline"}
    assert (answer.json["success"], answer.json["message"], answer.json["deliveries"]) == (True, "a", 1)
    assert seconds + 95 < answer.json["deadline"] < seconds + 105
    assert counts(api) == {"count": 1, "reserved": 1, "dead": 0}


def test_reserve_with_max_answers_a_list(api: Api) -> None:
    push(api, "a", "b", "c")
    found = api.post("reserve", json={"max": 2}).json
    assert set(found) == {"success", "messages"}
    assert [(one["message"], one["deliveries"]) for one in found["messages"]] == [("a", 1), ("b", 1)]
    fields = {"id", "message", "deliveries", "max_deliveries", "deadline"}
    assert all(set(one) == fields for one in found["messages"])


def test_reserve_of_an_empty_queue_is_not_an_error(api: Api) -> None:
    cases: list[tuple[Any, Any]] = [({}, {}), ({"max": 3}, {"messages": []}), ({"wait": 0.01}, {})]
    for fields, list_field in cases:
        answer = api.post("reserve", json=fields)
        assert (answer.status_code, answer.json) == (200, {**EMPTY, **list_field})


def test_a_lease_lasts_half_a_minute_by_default(api: Api) -> None:
    push(api, "a")
    deadline = api.post("reserve").json["deadline"]
    assert 25 < deadline - api.client.time()[0] < 35


def test_bytes_are_reserved_as_base64(api: Api) -> None:
    api.post("push", b"\xff\x00", BYTES)
    assert api.post("reserve").json["message"] == {"base64": "/wA="}


def test_ack_ends_reservations_and_answers_how_many(api: Api) -> None:
    push(api, "a", "b", "c")
    one, two, three = (one["id"] for one in api.post("reserve", json={"max": 3}).json["messages"])
    assert api.post("ack", json={"id": one}).json == {"success": True, "acked": 1}
    assert api.post("ack", json={"ids": [two, three]}).json == {"success": True, "acked": 2}
    assert api.post("ack", json={"ids": [one, two, three]}).json == {"success": True, "acked": 3}  # again: harmless
    assert counts(api) == {"count": 0, "reserved": 0, "dead": 0}


@pytest.mark.parametrize("sent_in", ["json", "form", "query", "form list", "query list"])
def test_ids_are_read_from_the_query_and_from_every_body(api: Api, sent_in: str) -> None:
    push(api, "a", "b")
    ids = [one["id"] for one in api.post("reserve", json={"max": 2}).json["messages"]]
    request: dict[str, Any] = {
        "json": {"json": {"ids": ids}},
        "form": {"data": {"id": ids[0]}},
        "query": {"query_string": {"id": ids[0]}},
        "form list": {"data": {"ids": ",".join(ids)}},
        "query list": {"query_string": {"ids": ",".join(ids)}},
    }[sent_in]
    assert api.post("release", **request).status_code == 200
    assert api.post("reserve", json={"max": 2}).json["success"]
    check_error(api.post("ack", **request), 409, "stale")  # the ids are read here too; they have ended


def test_a_late_ack_is_409_and_names_the_ids_that_are_not_held(api: Api) -> None:
    push(api, "a", "b")
    late, held = (one["id"] for one in api.post("reserve", json={"max": 2}).json["messages"])
    end_leases(api.queue, late)
    for operation, fields in [
        ("ack", {"id": late}),
        ("ack", {"ids": [held, late]}),
        ("release", {"ids": [held, late]}),
        ("extend", {"id": late}),
    ]:
        assert check_error(api.post(operation, json=fields), 409, "stale")["stale"] == [late]
    assert counts(api) == {"count": 1, "reserved": 1, "dead": 0}
    assert api.post("ack", json={"id": held}).json["acked"] == 1


def test_released_messages_are_popped_next(api: Api) -> None:
    push(api, "a", "b", "c")
    ids = [one["id"] for one in api.post("reserve", json={"max": 2}).json["messages"]]
    answer = api.post("release", json={"ids": ids})
    assert answer.json == {"success": True, "released": 2, "dead": 0}
    assert api.messages() == [b"a", b"b", b"c"]
    assert api.post("reserve").json["deliveries"] == 2


def test_an_id_named_twice_counts_once(api: Api) -> None:
    push(api, "a", "b")
    one, two = (one["id"] for one in api.post("reserve", json={"max": 2}).json["messages"])
    assert api.post("ack", json={"ids": [one, one]}).json["acked"] == 1
    assert api.post("release", json={"ids": [two, two]}).json["released"] == 1


def test_extend_answers_the_new_deadline(api: Api) -> None:
    push(api, "a")
    found = api.post("reserve", json={"lease": 10}).json
    cases: list[tuple[Any, float]] = [
        ({"lease": 1000}, 1000),
        ({}, 30),
        ({"lease": 43200}, 43200),
        ({"lease": "1.5"}, 2),
    ]
    for fields, seconds in cases:
        answer = api.post("extend", json={"id": found["id"], **fields}).json
        assert answer["success"] is True
        assert abs(answer["deadline"] - api.client.time()[0] - seconds) < 5


def test_a_dead_letter_is_read_and_moved_back_with_the_same_operations(api: Api) -> None:
    push(api, "poison", "good")
    for deliveries in range(1, 6):
        found = api.post("reserve").json
        assert (found["message"], found["deliveries"]) == ("poison", deliveries)
        answer = api.post("release", json={"id": found["id"]}).json
        assert answer == {"success": True, "released": 1, "dead": int(deliveries == 5)}
    assert counts(api) == {"count": 1, "reserved": 0, "dead": 1}
    dead = api.of(api.name + ".dead")
    assert dead.get("all").json == {"success": True, "messages": ["poison"], "count": 1}
    assert dead.post("move", json={"to": api.name}).json["moved"] == 1
    assert api.messages() == [b"good", b"poison"]


def test_the_longest_name_has_dead_letters_too(api: Api) -> None:
    long = "x" * 128
    for path in (f"{long}/all", f"{long}.dead/all"):
        assert api.http.get(f"/api/queue/{path}").status_code == 200
    assert api.http.get(f"/api/queue/{long}x/all").status_code == 400


def test_the_dead_letters_of_dead_letters_have_routes_too(api: Api) -> None:
    dead = api.of(api.name + ".dead")
    push(dead, "a")
    for _ in range(5):
        dead.post("release", json={"id": dead.post("reserve").json["id"]})
    assert dead.get("count").json["dead"] == 1
    assert api.of(api.name + ".dead.dead").post("pop").json == {"success": True, "message": "a"}
    assert counts(api) == {"count": 0, "reserved": 0, "dead": 0}
