"""The routes that consumers use, as they answer: every row of the contract, and every parameter that is refused."""

import http.client
import json
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from app import app
from broker.reliable import ReliableQueue
from tests.conftest import Api
from tests.servers import App, FakeRedis, Store
from web.waiting import Waiting

EMPTY = {"success": False, "error": "empty", "message": "The queue is empty."}
COUNTS = {"reserved": 0, "dead": 0, "waiters": 0}


@pytest.fixture(autouse=True)
def waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let who waits ask a fake as well."""
    monkeypatch.setitem(app.config, "WAITING", Waiting(FakeRedis(), 10, lambda: False))


def queue_of(api: Api) -> ReliableQueue:
    return ReliableQueue(app.config["CLIENT"], api.key.removeprefix("queue:"))


def end_leases(api: Api) -> None:
    """Let all leases have ended long ago."""
    queue = queue_of(api)
    for number, id in enumerate(queue.client.zrange(queue.meta + "reserved", 0, -1)):
        queue.client.zadd(queue.meta + "reserved", {id: number})


def push(api: Api, *texts: str) -> None:
    api.post("push", json={"messages": list(texts)})


def counts(api: Api) -> dict[str, int]:
    answer = api.get("count").json
    return {key: answer[key] for key in ("count", "reserved", "dead")}


def refused(answer: Any, status: int, error: str) -> dict[str, Any]:
    """Return a refusal that has everything a refusal must have."""
    assert (answer.status_code, answer.json["success"], answer.json["error"]) == (status, False, error), answer.json
    assert re.fullmatch(r".+[ ].+", answer.json["message"])
    assert answer.content_type == "application/json"
    return dict(answer.json)


# --- reserve, ack, release, extend


def test_reserve_answers_the_message_with_its_id_deliveries_and_deadline(api: Api) -> None:
    push(api, "a", "b")
    answer = api.post("reserve", json={"lease": 100})
    assert answer.status_code == 200
    seconds = app.config["CLIENT"].time()[0]
    assert set(answer.json) == {"success", "id", "message", "deliveries", "deadline"}
    assert (answer.json["success"], answer.json["message"], answer.json["deliveries"]) == (True, "a", 1)
    assert seconds + 95 < answer.json["deadline"] < seconds + 105
    assert counts(api) == {"count": 1, "reserved": 1, "dead": 0}


def test_reserve_max_answers_a_list_of_those(api: Api) -> None:
    push(api, "a", "b", "c")
    found = api.post("reserve", json={"max": 2}).json
    assert set(found) == {"success", "messages"}
    assert [(one["message"], one["deliveries"]) for one in found["messages"]] == [("a", 1), ("b", 1)]
    assert {frozenset(one) for one in found["messages"]} == {frozenset({"id", "message", "deliveries", "deadline"})}


def test_reserve_of_an_empty_queue_is_no_fault(api: Api) -> None:
    cases: list[tuple[Any, Any]] = [({}, {}), ({"max": 3}, {"messages": []}), ({"wait": 0.01}, {})]
    for given, more in cases:
        answer = api.post("reserve", json=given)
        assert (answer.status_code, answer.json) == (200, {**EMPTY, **more})


def test_reserve_lasts_half_a_minute_unless_told(api: Api) -> None:
    push(api, "a")
    deadline = api.post("reserve").json["deadline"]
    assert 25 < deadline - app.config["CLIENT"].time()[0] < 35


def test_bytes_are_reserved_as_base64(api: Api) -> None:
    api.post("push", b"\xff\x00", "application/octet-stream")
    assert api.post("reserve").json["message"] == {"base64": "/wA="}


def test_ack_answers_how_many_and_ends_them(api: Api) -> None:
    push(api, "a", "b", "c")
    one, two, three = (one["id"] for one in api.post("reserve", json={"max": 3}).json["messages"])
    assert api.post("ack", json={"id": one}).json == {"success": True, "acked": 1}
    assert api.post("ack", json={"ids": [two, three]}).json == {"success": True, "acked": 2}
    assert api.post("ack", json={"ids": [one, two, three]}).json == {"success": True, "acked": 3}  # again: harmless
    assert counts(api) == {"count": 0, "reserved": 0, "dead": 0}


@pytest.mark.parametrize("way", ["json", "form", "query", "form list", "query list"])
def test_ids_are_read_from_wherever_they_are(api: Api, way: str) -> None:
    push(api, "a", "b")
    ids = [one["id"] for one in api.post("reserve", json={"max": 2}).json["messages"]]
    request: dict[str, Any] = {
        "json": {"json": {"ids": ids}},
        "form": {"data": {"id": ids[0]}},
        "query": {"query_string": {"id": ids[0]}},
        "form list": {"data": {"ids": ",".join(ids)}},
        "query list": {"query_string": {"ids": ",".join(ids)}},
    }[way]
    for verb in ("release", "reserve", "ack"):
        if verb == "reserve":
            assert len(api.post("reserve", json={"max": 2}).json["messages"]) >= 1
            continue
        answer = api.post(verb, **request)
        assert answer.status_code == (200 if verb == "release" else 409), answer.json


def test_a_late_ack_is_409_and_names_what_is_not_held(api: Api) -> None:
    push(api, "a", "b")
    late, held = (one["id"] for one in api.post("reserve", json={"max": 2}).json["messages"])
    queue = queue_of(api)
    queue.client.zadd(queue.meta + "reserved", {late: 1})
    for verb, given in [
        ("ack", {"id": late}),
        ("ack", {"ids": [held, late]}),
        ("release", {"ids": [held, late]}),
        ("extend", {"id": late}),
    ]:
        assert refused(api.post(verb, json=given), 409, "stale")["stale"] == [late]
    assert counts(api) == {"count": 1, "reserved": 1, "dead": 0}
    assert api.post("ack", json={"id": held}).json["acked"] == 1


def test_release_answers_how_many_and_gives_them_back_next(api: Api) -> None:
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
    for given, seconds in cases:
        answer = api.post("extend", json={"id": found["id"], **given}).json
        assert answer["success"] is True
        assert abs(answer["deadline"] - app.config["CLIENT"].time()[0] - seconds) < 5


def test_a_message_dies_and_is_read_and_moved_back_with_the_same_verbs(api: Api, name: str) -> None:
    push(api, "poison", "good")
    for deliveries in range(1, 6):
        found = api.post("reserve").json
        assert (found["message"], found["deliveries"]) == ("poison", deliveries)
        answer = api.post("release", json={"id": found["id"]}).json
        assert answer == {"success": True, "released": 1, "dead": int(deliveries == 5)}
    assert counts(api) == {"count": 1, "reserved": 0, "dead": 1}
    dead = Api(api.http, f"/api/queue/{name}.dead", f"{{queue:{name}}}:dead")
    assert dead.get("all").json == {"success": True, "messages": ["poison"], "count": 1}
    assert dead.post("move", json={"to": name}).json == {"success": True, "moved": 1}
    assert api.messages() == [b"good", b"poison"]


def test_the_longest_name_has_dead_letters_too(api: Api, name: str) -> None:
    long = name + "x" * (128 - len(name))
    for verb in (f"{long}/all", f"{long}.dead/all"):
        assert api.http.get(f"/api/queue/{verb}").status_code == 200
    assert api.http.get(f"/api/queue/{long}x/all").status_code == 400


def test_the_dead_letters_of_dead_letters_have_routes_too(api: Api, name: str) -> None:
    dead = Api(api.http, f"/api/queue/{name}.dead", "")
    push(dead, "a")
    for _ in range(5):
        dead.post("release", json={"id": dead.post("reserve").json["id"]})
    assert dead.get("count").json["dead"] == 1
    assert api.http.post(f"/api/queue/{name}.dead.dead/pop").json == {"success": True, "message": "a"}
    assert counts(api) == {"count": 0, "reserved": 0, "dead": 0}


def test_count_tells_the_truth_about_leases_that_ended(api: Api) -> None:
    push(api, "a")
    api.post("reserve")
    assert api.get("count").json == {"success": True, "message": "0", "count": 0, **COUNTS, "reserved": 1}
    end_leases(api)
    assert api.get("count").json == {"success": True, "message": "1", "count": 1, **COUNTS}
    assert api.get("all").json["messages"] == ["a"]


# --- what is refused


@pytest.mark.parametrize("verb", ["pop", "reserve"])
@pytest.mark.parametrize("wait", ["-1", "60.1", "61", "x", "", "nan", "inf", "1e9", "1_0", "٣", "0x1", "9" * 30])
def test_a_bad_wait_is_refused_and_takes_nothing(api: Api, verb: str, wait: str) -> None:
    push(api, "a")
    for where in ("query_string", "json", "data"):
        request: dict[str, Any] = {where: {"wait": wait}}
        assert refused(api.post(verb, **request), 400, "bad_parameter")["parameter"] == "wait"
    assert api.messages() == [b"a"]


@pytest.mark.parametrize("verb", ["pop", "reserve"])
@pytest.mark.parametrize("wait", ["0", "60", "0.5", "1e1", "+1"])
def test_a_good_wait_is_taken(api: Api, verb: str, wait: str) -> None:
    push(api, "a")
    assert api.post(verb, query_string={"wait": wait}).json["message"] == "a"


@pytest.mark.parametrize("lease", ["0", "0.9", "43200.1", "-1", "x", "", "nan", "-inf", "1e9"])
def test_a_bad_lease_is_refused_and_changes_nothing(api: Api, lease: str) -> None:
    push(api, "a", "b")
    held = api.post("reserve").json
    assert refused(api.post("reserve", json={"lease": lease}), 400, "bad_parameter")["parameter"] == "lease"
    answer = api.post("extend", json={"id": held["id"], "lease": lease})
    assert refused(answer, 400, "bad_parameter")["parameter"] == "lease"
    assert counts(api) == {"count": 1, "reserved": 1, "dead": 0}


@pytest.mark.parametrize("most", ["0", "1001", "-1", "x", "1.5", ""])
def test_a_bad_max_is_refused_and_changes_nothing(api: Api, most: str) -> None:
    push(api, "a")
    assert refused(api.post("reserve", json={"max": most}), 400, "bad_parameter")["parameter"] == "max"
    answer = api.post("move", json={"to": "elsewhere", "max": most})
    if most != "1001":
        assert refused(answer, 400, "bad_parameter")["parameter"] == "max"
        assert api.messages() == [b"a"]


@pytest.mark.parametrize("verb", ["ack", "release"])
@pytest.mark.parametrize(
    "given",
    [{}, {"id": "a", "ids": ["a"]}, {"ids": []}, {"ids": ["a"] * 1001}, {"ids": [1]}, {"ids": {}}, {"ids": [["a"]]},
     {"id": ["a"]}, {"id": {}}, {"ids": [None]}, {"id": None}],
)  # fmt: skip
def test_bad_ids_are_refused(api: Api, verb: str, given: dict[str, Any]) -> None:
    refused(api.post(verb, json=given), 400, "bad_parameter")


@pytest.mark.parametrize(
    ("verb", "field"), [("ack", "id"), ("release", "id"), ("extend", "id"), ("restore", "undo"), ("move", "to")]
)
@pytest.mark.parametrize("value", ['"\\ud800"', '"\\u0000"', '"' + "x" * 100_000 + '"', '"*"', '"a b"', '"žluť 🐎"'])
def test_a_strange_text_is_refused_like_any_unknown_one(api: Api, verb: str, field: str, value: str) -> None:
    push(api, "a")
    answer = api.post(verb, f'{{"{field}": {value}}}', "application/json")
    assert answer.status_code in (400, 409), answer.json
    assert (answer.json["success"], api.messages()) == (False, [b"a"])


@pytest.mark.parametrize("verb", ["ack", "release"])
def test_a_strange_text_in_a_list_is_refused_too(api: Api, verb: str) -> None:
    answer = api.post(verb, '{"ids": ["\\ud800", "b"]}', "application/json")
    assert answer.status_code in (400, 409)


@pytest.mark.parametrize(("verb", "field"), [("extend", "id"), ("restore", "undo"), ("move", "to")])
@pytest.mark.parametrize("given", [{}, {"x": None}, {"x": ""}, {"x": ["a"]}, {"x": {}}])
def test_what_must_be_given_is_asked_for(api: Api, verb: str, field: str, given: dict[str, Any]) -> None:
    answer = api.post(verb, json={field: given["x"]} if given else {})
    assert refused(answer, 400, "bad_parameter")["parameter"] == field


@pytest.mark.parametrize("verb", ["reserve", "ack", "release", "extend", "remove", "clear", "restore", "move"])
def test_each_act_is_a_post(api: Api, verb: str) -> None:
    answer = api.get(verb)
    refused(answer, 405, "method_not_allowed")
    assert {word.strip() for word in answer.headers["Allow"].split(",")} == {"OPTIONS", "POST"}


def test_events_and_queues_are_gets(api: Api) -> None:
    refused(api.post("events"), 405, "method_not_allowed")
    refused(api.http.post("/api/queues"), 405, "method_not_allowed")


@pytest.mark.parametrize(
    ("verb", "method"),
    [("reserve", "post"), ("ack", "post"), ("release", "post"), ("extend", "post"), ("remove", "post"),
     ("clear", "post"), ("restore", "post"), ("move", "post"), ("events", "get")],
)  # fmt: skip
@pytest.mark.parametrize("wrong", ["a%20b", "%C3%A9", "a%2Fb", "x" * 129, "{a}"])
def test_what_is_no_name_is_refused(api: Api, verb: str, method: str, wrong: str) -> None:
    given = {"json": {"id": "a", "position": 0, "message": "a", "undo": "a", "to": "a"}} if method == "post" else {}
    refused(getattr(api.http, method)(f"/api/queue/{wrong}/{verb}", **given), 400, "bad_name")


# --- remove, clear, restore, move


def test_remove_answers_the_message_it_removed(api: Api) -> None:
    push(api, "a", "b", "c")
    answer = api.post("remove", json={"position": 1, "message": "b"})
    assert (answer.status_code, answer.json) == (200, {"success": True, "message": "b"})
    assert api.post("remove", {"position": "1", "message": "c"}).json == {"success": True, "message": "c"}
    assert api.messages() == [b"a"]


@pytest.mark.parametrize(
    ("position", "message"), [(0, "b"), (1, "a"), (2, "a"), (10**12, "a"), (0, {"base64": "/w=="})]
)
def test_remove_of_what_is_not_there_is_409(api: Api, position: int, message: Any) -> None:
    push(api, "a", "b")
    refused(api.post("remove", json={"position": position, "message": message}), 409, "stale")
    assert api.messages() == [b"a", b"b"]


@pytest.mark.parametrize(
    "given",
    [{}, {"position": 0}, {"message": "a"}, {"position": -1, "message": "a"}, {"position": "x", "message": "a"},
     {"position": 0, "message": None}, {"position": 1.5, "message": "a"}, {"position": None, "message": "a"}],
)  # fmt: skip
def test_remove_needs_a_position_and_a_message(api: Api, given: dict[str, Any]) -> None:
    push(api, "a")
    refused(api.post("remove", json=given), 400, "bad_parameter")
    assert api.messages() == [b"a"]


def test_remove_of_bytes_and_of_json(api: Api) -> None:
    api.post("push", json={"messages": [{"base64": "/wA="}, {"a": [1]}]})
    assert api.post("remove", json={"position": 1, "message": '{"a":[1]}'}).json["message"] == '{"a":[1]}'
    answer = api.post("remove", json={"position": 0, "message": {"base64": "/wA="}})
    assert answer.json == {"success": True, "message": {"base64": "/wA="}}
    assert api.messages() == []


def test_clear_answers_an_undo_that_restore_takes_once(api: Api) -> None:
    push(api, "a", "b")
    answer = api.post("clear").json
    assert (answer["success"], answer["cleared"], set(answer)) == (True, 2, {"success", "cleared", "undo"})
    assert api.messages() == []
    push(api, "c")
    assert api.post("restore", json={"undo": answer["undo"]}).json == {"success": True, "restored": 2}
    assert api.messages() == [b"a", b"b", b"c"]
    refused(api.post("restore", json={"undo": answer["undo"]}), 409, "stale")
    refused(api.post("restore", json={"undo": "never"}), 409, "stale")


def test_clear_of_an_empty_queue_is_a_success(api: Api) -> None:
    assert api.post("clear").json == {"success": True, "cleared": 0, "undo": None}


def test_move_answers_how_many_and_keeps_their_order(api: Api, name: str) -> None:
    push(api, *map(str, range(2500)))
    assert api.post("move", json={"to": name + "x", "max": 1200}).json == {"success": True, "moved": 1200}
    assert api.post("move", {"to": name + "x"}).json == {"success": True, "moved": 1300}
    assert api.post("move", query_string={"to": name + "x"}).json == {"success": True, "moved": 0}
    assert Api(api.http, "", f"queue:{name}x").messages() == [b"%d" % number for number in range(2500)]


def test_a_move_to_itself_or_to_no_name_is_refused(api: Api, name: str) -> None:
    push(api, "a")
    assert refused(api.post("move", json={"to": name}), 400, "bad_parameter")["parameter"] == "to"
    refused(api.post("move", json={"to": "a b"}), 400, "bad_name")
    assert api.messages() == [b"a"]


def test_a_move_into_what_is_no_list_is_409_and_moves_nothing(api: Api, name: str) -> None:
    push(api, "a")
    app.config["CLIENT"].set(f"queue:{name}x", "text")
    assert refused(api.post("move", json={"to": name + "x"}), 409, "wrong_type")["moved"] == 0
    assert api.messages() == [b"a"]


@pytest.mark.parametrize(
    ("verb", "given"),
    [("pop", {}), ("reserve", {}), ("ack", {"id": "a"}), ("release", {"id": "a"}), ("extend", {"id": "a"}),
     ("remove", {"position": 0, "message": "a"}), ("clear", {}), ("restore", {"undo": "a"}), ("move", {"to": "a"})],
)  # fmt: skip
def test_what_is_no_list_is_409(api: Api, verb: str, given: dict[str, Any]) -> None:
    app.config["CLIENT"].set(api.key, "text")
    refused(api.post(verb, json=given), 409, "wrong_type")
    assert app.config["CLIENT"].get(api.key) == b"text"


# --- Idempotency-Key


def test_one_key_pushes_once_and_answers_the_same(api: Api) -> None:
    for body in ({"message": "a"}, {"messages": ["b", "c"]}):
        key = {"Idempotency-Key": f"key-{len(str(body))}"}
        answers = [api.post("push", json=body, headers=key) for _ in range(3)]
        assert len({(answer.status_code, answer.data) for answer in answers}) == 1
        assert answers[0].json["success"] is True
    assert api.messages() == [b"a", b"b", b"c"]


def test_one_key_with_another_body_is_409(api: Api) -> None:
    key = {"Idempotency-Key": "key"}
    api.post("push", json={"message": "a"}, headers=key)
    refused(api.post("push", json={"message": "b"}, headers=key), 409, "conflict")
    refused(api.post("push", json={"message": "a"}, query_string={"next": 1}, headers=key), 409, "conflict")
    refused(api.post("pop", headers=key), 409, "conflict")
    assert api.messages() == [b"a"]


def test_one_key_pops_once_and_answers_the_same(api: Api) -> None:
    push(api, "a", "b", "c")
    answers = [api.post("pop", json={"max": 2}, headers={"Idempotency-Key": "key"}) for _ in range(3)]
    assert [answer.json for answer in answers] == [{"success": True, "messages": ["a", "b"]}] * 3
    refused(api.post("pop", headers={"Idempotency-Key": "key"}), 409, "conflict")
    assert api.messages() == [b"c"]


def test_an_empty_pop_is_not_kept_for_its_key(api: Api) -> None:
    key = {"Idempotency-Key": "key"}
    assert api.post("pop", headers=key).json == EMPTY
    assert api.post("pop", json={"wait": 0.05}, headers=key).json == EMPTY
    push(api, "a")
    assert [api.post("pop", headers=key).json["message"] for _ in range(2)] == ["a", "a"]


def test_keys_of_two_queues_are_apart(api: Api, name: str) -> None:
    for path in (api.path, f"/api/queue/{name}x"):
        answer = api.http.post(f"{path}/push", json={"message": "a"}, headers={"Idempotency-Key": "key"})
        assert answer.json["count"] == 1


@pytest.mark.parametrize("key", ["", " ", "a b", "é", "x" * 256, "\x7f"])
@pytest.mark.parametrize("verb", ["push", "pop"])
def test_what_is_no_key_is_refused(api: Api, verb: str, key: str) -> None:
    push(api, "a")
    answer = api.post(verb, {"message": "b"}, headers={"Idempotency-Key": key})
    refused(answer, 400, "bad_idempotency_key")
    assert api.messages() == [b"a"]


# --- under gunicorn, on Valkey and on Redis


@pytest.fixture(params=["valkey", "redis7"])
def real(request: pytest.FixtureRequest) -> App:
    """The app with two workers."""
    if request.param == "valkey":
        found: App = request.getfixturevalue("site")
        return found
    store: Store = request.getfixturevalue("redis7")
    serve: Callable[..., App] = request.getfixturevalue("serve")
    return serve(REDIS_URL=store.url)


def call(site: App, path: str, given: dict[str, Any] | None = None, key: str = "") -> tuple[int, Any]:
    """Ask over a connection of its own, so that any worker may answer."""
    connection = http.client.HTTPConnection("127.0.0.1", site.port, timeout=30)
    headers = {"Content-Type": "application/json"} | ({"Idempotency-Key": key} if key else {})
    body = None if given is None else json.dumps(given)
    connection.request("GET" if given is None else "POST", path, body, headers)
    response = connection.getresponse()
    found = response.status, json.loads(response.read())
    connection.close()
    return found


def test_every_row_of_the_table_answers_as_it_says(real: App, name: str) -> None:
    def act(verb: str, **given: Any) -> Any:
        status, answer = call(real, f"/api/queue/{name}/{verb}", given)
        assert (status, answer.pop("success")) == (200, True), answer
        return answer

    def look(verb: str) -> Any:
        status, answer = call(real, f"/api/queue/{name}/{verb}")
        assert (status, answer.pop("success")) == (200, True), answer
        return answer

    assert act("push", message="a") == {"message": "a", "count": 1}
    assert act("push", messages=["b", "c", "d", "e"]) == {"pushed": 4, "count": 5}
    assert look("count") == {"count": 5, "message": "5", **COUNTS}
    assert look("all?offset=1&limit=1&preview=1") == {"messages": [{"preview": "b", "bytes": 1}], "count": 5}
    assert act("pop") == {"message": "a"}
    assert act("pop", max=1) == {"messages": ["b"]}
    first = act("reserve", lease=60)
    assert (first["message"], first["deliveries"]) == ("c", 1)
    assert act("extend", id=first["id"], lease=100)["deadline"] > first["deadline"]
    assert act("ack", id=first["id"]) == {"acked": 1}
    second = act("reserve", max=5, wait=1)["messages"]
    assert [one["message"] for one in second] == ["d", "e"]
    assert act("release", ids=[one["id"] for one in second]) == {"released": 2, "dead": 0}
    assert act("remove", position=1, message="e") == {"message": "e"}
    cleared = act("clear")
    assert cleared["cleared"] == 1
    assert act("restore", undo=cleared["undo"]) == {"restored": 1}
    assert act("move", to=name + "x", max=10) == {"moved": 1}
    assert call(real, f"/api/queue/{name}x/pop", {}) == (200, {"success": True, "message": "d"})
    assert call(real, f"/api/queue/{name}/pop", {}) == (200, EMPTY)
    assert call(real, f"/api/queue/{name}/ack", {"id": second[0]["id"]})[0] == 409


def test_one_key_works_across_the_workers_at_once(real: App, name: str) -> None:
    with ThreadPoolExecutor(8) as pool:
        given = [{"message": "a"}] * 40
        answers = list(pool.map(lambda each: call(real, f"/api/queue/{name}/push", each, "push"), given))
        assert answers == [(200, {"success": True, "message": "a", "count": 1})] * 40
        assert call(real, f"/api/queue/{name}/count")[1]["count"] == 1
        answers = list(pool.map(lambda each: call(real, f"/api/queue/{name}/pop", {}, "pop"), range(40)))
        assert answers == [(200, {"success": True, "message": "a"})] * 40
        assert call(real, f"/api/queue/{name}/pop", {}) == (200, EMPTY)


@pytest.mark.parametrize("here", [[], [True]], ids=["before", "while it is fetched"])
@pytest.mark.parametrize("verb", ["pop", "reserve"])
def test_a_client_that_leaves_takes_nothing(
    api: Api, verb: str, here: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = iter(here)
    monkeypatch.setattr("app.hung_up", lambda: lambda: not next(looks, False))
    api.post("push", json={"messages": ["a", "b", "c"]})
    assert api.post(verb, query_string={"wait": 1, "max": 2}).json["error"] == "empty"
    assert api.messages() == [b"a", b"b", b"c"]
    assert api.get("count").json["reserved"] == 0


def test_a_client_that_left_before_it_was_heard_takes_nothing_with_a_key_either(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.hung_up", lambda: lambda: True)
    api.post("push", json={"message": "a"})
    answer = api.post("pop", query_string={"wait": 1}, headers={"Idempotency-Key": "k"})
    assert (answer.json["error"], api.messages()) == ("empty", [b"a"])
