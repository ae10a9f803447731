"""pop and reserve from several queues in order, and what they say of who takes."""

import json
from typing import Any

import pytest

from settings import Settings
from tests.conftest import Api, AppOn
from tests.web.helpers import EMPTY, TEXT, check_error, everything, push
from web.api import OPERATIONS

NAMES = "urgent,normal,low"


@pytest.fixture
def several(api: Api) -> Api:
    """The routes of three queues together."""
    return Api(api.app_on, Settings(), api.client, NAMES, f"/api/queue/{NAMES}")


def test_the_answer_names_the_queue_that_the_message_came_from(several: Api) -> None:
    push(several.of("low"), "l")
    push(several.of("urgent"), "u")
    assert several.post("pop").json == {"success": True, "message": "u", "queue": "urgent"}
    answer = several.post("reserve").json
    assert (answer["message"], answer["queue"]) == ("l", "low")
    assert several.of("low").post("ack", {"id": answer["id"]}).json["acked"] == 1
    assert several.post("pop").json == several.post("reserve").json == EMPTY
    push(several.of("low"), "l")
    assert several.of("low").post("pop").json == {"success": True, "message": "l"}


@pytest.mark.parametrize("operation", ["pop", "reserve"])
def test_with_max_all_messages_come_from_the_first_queue_that_has_any(several: Api, operation: str) -> None:
    push(several.of("normal"), "1", "2")
    push(several.of("low"), "3")
    answer = several.post(operation, {"max": "9"}).json
    found = [one if operation == "pop" else one["message"] for one in answer["messages"]]
    assert (answer["queue"], found) == ("normal", ["1", "2"])
    assert several.of("low").messages() == [b"3"]


def test_it_is_paused_only_if_all_queues_are(several: Api) -> None:
    push(several.of("urgent"), "u")
    for name in ("urgent", "normal"):
        several.of(name).post("pause")
    assert several.post("pop").json == EMPTY
    several.of("low").post("pause")
    assert several.post("reserve", {"max": "1"}).json["error"] == several.post("pop").json["error"] == "paused"
    push(several.of("low"), "l")
    several.of("low").post("resume")
    assert several.post("pop").json == {"success": True, "message": "l", "queue": "low"}


def test_a_message_popped_as_text_has_its_queue_in_a_header(several: Api) -> None:
    push(several.of("low"), "l", "m")
    answer = several.post("pop", headers={"Accept": TEXT})
    assert (answer.data, answer.headers["Queue"]) == (b"l", "low")
    answer = several.of("low").post("pop", headers={"Accept": TEXT})
    assert (answer.data, "Queue" in answer.headers) == (b"m", False)
    assert several.post("pop", headers={"Accept": TEXT}).status_code == 204


@pytest.mark.parametrize(
    ("names", "named"),
    [
        ("jobs,", '""'),
        (",jobs", '""'),
        ("jobs,a%20b,c", '"a b"'),
        ("jobs,a,jobs", '"jobs"'),
        ("jobs," + "x" * 129, "xxx"),
        (",".join(f"q{number}" for number in range(11)), "at most 10"),
    ],
    ids=lambda text: text[:9],
)
@pytest.mark.parametrize("operation", ["pop", "reserve"])
def test_a_name_that_is_not_valid_and_one_given_twice_are_refused(
    api: Api, operation: str, names: str, named: str
) -> None:
    push(api, "a")
    before = everything(api.client)
    assert named in check_error(api.http.post(f"/api/queue/{names}/{operation}"), 400, "bad_name")["message"]
    assert everything(api.client) == before


def test_ten_queues_are_not_too_many(api: Api) -> None:
    push(api.of("q9"), "a")
    names = ",".join(f"q{number}" for number in range(10))
    assert api.http.post(f"/api/queue/{names}/pop").json["queue"] == "q9"


@pytest.mark.parametrize("operation", ["pop", "reserve"])
def test_several_queues_take_no_idempotency_key(several: Api, operation: str) -> None:
    push(several.of("low"), "a")
    check_error(several.post(operation, headers={"Idempotency-Key": "k"}), 400, "bad_idempotency_key")
    assert several.of("low").messages() == [b"a"]


def test_all_other_operations_refuse_several_names(several: Api) -> None:
    assert {one.id for one in OPERATIONS if one.several} == {"pop", "reserve"}
    for one in OPERATIONS:
        if not one.several and not one.path:
            answer = several.http.open(f"{several.path}/{one.name}", method=one.method)
            check_error(answer, 400, "bad_name")


def test_the_queue_taken_from_is_counted_and_logged(
    app_on: AppOn, database: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    api = Api(app_on, Settings(log_requests=True), database, "low", "/api/queue/low")
    push(api, "a", "b", "c")
    for request in (
        {"path": f"/api/queue/{NAMES}/pop"},
        {"path": f"/api/queue/{NAMES}/pop", "headers": {"Accept": TEXT}},
        {"path": f"/api/queue/{NAMES}/reserve"},
        {"path": f"/api/queue/{NAMES}/pop"},
    ):
        api.http.post(**request)
    lines = [json.loads(line) for line in capfd.readouterr().out.splitlines() if line.startswith("{")]
    assert [line["queue"] for line in lines] == ["low", "low", "low", "low", NAMES]
    totals = api.app.extensions["queue"].counters.totals()
    counted = {key: number for key, (number, _) in totals.items() if key[0] in ("popped", "reserved") and number}
    assert counted == {("popped", "low"): 2, ("reserved", "low"): 1}


# --- who takes


def test_reserved_and_consumers_say_who_has_a_message(api: Api) -> None:
    push(api, "a", "b")
    api.post("reserve", {"by": "host:1"})
    api.post("reserve")
    assert [one.get("by") for one in api.get("reserved").json["messages"]] == ["host:1", None]
    answer = api.get("consumers").json
    assert all(0 <= one.pop("oldest") < 60 for one in answer["consumers"])
    assert sorted(answer.pop("consumers"), key=lambda one: one["by"]) == [
        {"by": "", "reserved": 1, "waiting": 0},
        {"by": "host:1", "reserved": 1, "waiting": 0},
    ]
    assert answer == {"success": True, "complete": True}


def test_a_queue_that_nobody_uses_has_no_consumers(api: Api) -> None:
    push(api, "a")
    assert api.get("consumers").json == {"success": True, "consumers": [], "complete": True}


@pytest.mark.parametrize("by", ["", "a b", "é", "x" * 65, "a\n"], ids=["empty", "blank", "letter", "long", "line"])
@pytest.mark.parametrize("operation", ["pop", "reserve"])
def test_a_name_of_a_consumer_is_visible_ascii(api: Api, operation: str, by: str) -> None:
    push(api, "a")
    assert check_error(api.post(operation, json={"by": by}), 400, "bad_parameter")["parameter"] == "by"
    assert api.messages() == [b"a"]
    assert api.post(operation, json={"by": "~" * 64}).json["success"]
