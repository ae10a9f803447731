"""What the parameters of a verb may be, wherever they are sent; an unknown or repeated one is refused."""

from typing import Any

import pytest
from werkzeug.datastructures import MultiDict

from tests.conftest import Api
from tests.web.helpers import BYTES, FORM, JSON, NDJSON, TEXT, check_error, counts, everything, push
from web.operations import VERBS, Verb

# --- values


@pytest.mark.parametrize(
    "max", ["0", "1001", "-1", "1.0", "1e2", " 1", "+1", "", "x", "٣", "9" * 5000, "1\n", "0x1", "1_0"]
)
def test_pop_refuses_a_bad_max_and_takes_nothing(named_api: Api, max: str) -> None:
    named_api.post("push", json={"message": "a"})
    answer = named_api.post("pop", query_string={"max": max})
    assert (answer.status_code, answer.json["error"], answer.json["parameter"]) == (400, "bad_parameter", "max")
    assert answer.json["success"] is False
    assert named_api.messages() == [b"a"]


@pytest.mark.parametrize("max", ["[1]", "{}", "1.5", "-1", "true1", "1e400", "1" + "0" * 5000, '"\\ud800"', "false"])
def test_pop_refuses_a_bad_max_in_the_body(named_api: Api, max: str) -> None:
    named_api.post("push", json={"message": "a"})
    answer = named_api.post("pop", '{"max": %s}' % max, JSON)  # noqa: UP031
    assert (answer.status_code, answer.json["success"]) == (400, False)
    assert named_api.messages() == [b"a"]


@pytest.mark.parametrize("max", ["1", "1.0", '"1"', "null"])
def test_a_number_may_be_written_in_several_ways_in_json(named_api: Api, max: str) -> None:
    push(named_api, "a")
    assert named_api.post("pop", '{"max": %s}' % max, JSON).json["success"]  # noqa: UP031


@pytest.mark.parametrize("parameter", ["offset", "limit", "preview"])
@pytest.mark.parametrize("value", ["-1", "x", "1.5", "9" * 30, ""])
def test_all_refuses_bad_numbers(named_api: Api, parameter: str, value: str) -> None:
    answer = named_api.get("all", query_string={parameter: value})
    assert (answer.status_code, answer.json["error"], answer.json["parameter"]) == (400, "bad_parameter", parameter)


@pytest.mark.parametrize("verb", ["pop", "reserve"])
@pytest.mark.parametrize("wait", ["-1", "60.1", "61", "x", "", "nan", "inf", "1e9", "1_0", "٣", "0x1", "9" * 30])
def test_a_bad_wait_is_refused_and_takes_nothing(named_api: Api, verb: str, wait: str) -> None:
    push(named_api, "a")
    for where in ("query_string", "json", "data"):
        request: dict[str, Any] = {where: {"wait": wait}}
        assert check_error(named_api.post(verb, **request), 400, "bad_parameter")["parameter"] == "wait"
    assert named_api.messages() == [b"a"]


@pytest.mark.parametrize("verb", ["pop", "reserve"])
@pytest.mark.parametrize("wait", ["0", "60", "0.5", "1e1", "+1", "2.2250738585072014e-308"])
def test_a_good_wait_is_taken(named_api: Api, verb: str, wait: str) -> None:
    push(named_api, "a")
    assert named_api.post(verb, query_string={"wait": wait}).json["message"] == "a"


@pytest.mark.parametrize("lease", ["0", "0.9", "43200.1", "-1", "x", "", "nan", "-inf", "1e9"])
def test_a_bad_lease_is_refused_and_changes_nothing(named_api: Api, lease: str) -> None:
    push(named_api, "a", "b")
    held = named_api.post("reserve").json
    assert check_error(named_api.post("reserve", json={"lease": lease}), 400, "bad_parameter")["parameter"] == "lease"
    answer = named_api.post("extend", json={"id": held["id"], "lease": lease})
    assert check_error(answer, 400, "bad_parameter")["parameter"] == "lease"
    assert counts(named_api) == {"count": 1, "reserved": 1, "dead": 0}


@pytest.mark.parametrize("max", ["0", "1001", "-1", "x", "1.5", ""])
def test_a_bad_max_is_refused_and_changes_nothing(named_api: Api, max: str) -> None:
    push(named_api, "a")
    assert check_error(named_api.post("reserve", json={"max": max}), 400, "bad_parameter")["parameter"] == "max"
    answer = named_api.post("move", json={"to": "elsewhere", "max": max})
    if max != "1001":
        assert check_error(answer, 400, "bad_parameter")["parameter"] == "max"
        assert named_api.messages() == [b"a"]


@pytest.mark.parametrize("verb", ["ack", "release"])
@pytest.mark.parametrize(
    "fields",
    [{}, {"id": "a", "ids": ["a"]}, {"ids": []}, {"ids": ["a"] * 1001}, {"ids": [1]}, {"ids": {}}, {"ids": [["a"]]},
     {"id": ["a"]}, {"id": {}}, {"ids": [None]}, {"id": None}],
)  # fmt: skip
def test_bad_ids_are_refused(named_api: Api, verb: str, fields: dict[str, Any]) -> None:
    check_error(named_api.post(verb, json=fields), 400, "bad_parameter")


@pytest.mark.parametrize(
    ("verb", "field"), [("ack", "id"), ("release", "id"), ("extend", "id"), ("restore", "undo"), ("move", "to")]
)
@pytest.mark.parametrize("value", ['"\\ud800"', '"\\u0000"', '"' + "x" * 100_000 + '"', '"*"', '"a b"', '"žluť 🐎"'])
def test_an_odd_text_is_refused_like_any_unknown_one(named_api: Api, verb: str, field: str, value: str) -> None:
    push(named_api, "a")
    answer = named_api.post(verb, f'{{"{field}": {value}}}', JSON)
    assert answer.status_code in (400, 409), answer.json
    assert (answer.json["success"], named_api.messages()) == (False, [b"a"])


@pytest.mark.parametrize("verb", ["ack", "release"])
def test_an_odd_text_in_a_list_is_refused_too(named_api: Api, verb: str) -> None:
    answer = named_api.post(verb, '{"ids": ["\\ud800", "b"]}', JSON)
    assert answer.status_code in (400, 409)


@pytest.mark.parametrize(("verb", "field"), [("extend", "id"), ("restore", "undo"), ("move", "to")])
@pytest.mark.parametrize("fields", [{}, {"x": None}, {"x": ""}, {"x": ["a"]}, {"x": {}}])
def test_a_required_parameter_must_be_sent(named_api: Api, verb: str, field: str, fields: dict[str, Any]) -> None:
    answer = named_api.post(verb, json={field: fields["x"]} if fields else {})
    assert check_error(answer, 400, "bad_parameter")["parameter"] == field


# --- unknown and repeated parameters


def valid_fields(api: Api) -> dict[str, dict[str, Any]]:
    """Prepare a queue, and return fields with which each verb succeeds on it."""
    push(api, "cleared")
    undo = api.post("clear").json["undo"]
    push(api, "held", "a", "b")
    held = api.post("reserve", json={"lease": 1000}).json["id"]
    return {
        "push": {"message": "c"},
        "pop": {},
        "count": {},
        "all": {},
        "events": {"next": "5", "history": "1"},
        "reserve": {},
        "ack": {"id": held},
        "release": {"id": held},
        "extend": {"id": held},
        "remove": {"position": 0, "message": "a"},
        "clear": {},
        "restore": {"undo": undo},
        "reserved": {},
        "delayed": {},
        "move": {"to": api.name + "x"},
        "pause": {},
        "resume": {},
        "result": {"job": "j", "result": "a"},
    }


def body_and_query(verb: Verb, fields: dict[str, Any], **query: Any) -> dict[str, Any]:
    """Return a request with fields, and some in the query: of a GET all of those that it takes."""
    if verb.method == "POST":
        return {"json": fields, "query_string": query}
    return {"query_string": {one.name: fields[one.name] for one in verb.parameters if one.name in fields} | query}


def check_unknown(answer: Any, parameter: str) -> str:
    """Return the sentence of an error for an unknown parameter."""
    found = check_error(answer, 400, "unknown_parameter")
    assert found["parameter"] == parameter
    assert repr(parameter) in found["message"]
    return str(found["message"])


every_verb = pytest.mark.parametrize("verb", VERBS, ids=lambda verb: f"{verb.method}-{verb.name}")
every_post = pytest.mark.parametrize("verb", [one for one in VERBS if one.method == "POST"], ids=lambda verb: verb.name)


@every_verb
def test_an_unknown_parameter_in_the_query_is_named_and_refused(api: Api, verb: Verb) -> None:
    fields = valid_fields(api)[verb.name]
    before = everything(api.client)
    request = body_and_query(verb, fields, ttl=60)
    sentence = check_unknown(api.http.open(f"{api.path}/{verb.name}", method=verb.method, **request), "ttl")
    for parameter in verb.parameters:
        assert parameter.name in sentence
    assert "--data-urlencode" not in sentence
    assert everything(api.client) == before


@every_post
def test_an_unknown_field_in_json_is_named_and_refused(api: Api, verb: Verb) -> None:
    fields = valid_fields(api)[verb.name]
    before = everything(api.client)
    assert "--data-urlencode" not in check_unknown(api.post(verb.name, json=fields | {"ttl": 60}), "ttl")
    assert everything(api.client) == before
    assert api.post(verb.name, json=fields).json["success"]  # it was only the unknown field


@every_post
def test_an_unknown_field_in_a_form_is_named_and_the_sentence_says_how_to_escape(api: Api, verb: Verb) -> None:
    fields = valid_fields(api)[verb.name]
    before = everything(api.client)
    assert "--data-urlencode" in check_unknown(api.post(verb.name, fields | {"ttl": "60"}), "ttl")
    assert everything(api.client) == before
    assert api.post(verb.name, fields).json["success"]


@pytest.mark.parametrize(
    ("body", "unknown"),
    [
        ("message=fish&chips", "chips"),
        ("message=fish& chips", " chips"),
        ("message=a&=", ""),
        ("message=a&Message=b", "Message"),
        ("message=a&%F0%9F%90%8E=b", "🐎"),
        ("message=a&" + "x" * 5000 + "=b", "x" * 60),
    ],
    ids=lambda value: value[:30],
)
def test_a_message_that_is_cut_by_an_unescaped_ampersand_is_refused(named_api: Api, body: str, unknown: str) -> None:
    found = check_error(named_api.post("push", body.encode(), FORM), 400, "unknown_parameter")
    assert found["parameter"] == unknown
    assert "--data-urlencode" in found["message"]
    assert len(found["message"]) < 400
    assert named_api.messages() == []


def test_a_name_with_a_lone_surrogate_is_refused(named_api: Api) -> None:
    check_error(named_api.post("push", '{"message": "a", "\\ud800": 1}', JSON), 400, "bad_utf8")
    assert named_api.messages() == []


@pytest.mark.parametrize("kind", [TEXT, BYTES, NDJSON])
def test_an_unknown_parameter_beside_a_body_without_fields_is_refused(named_api: Api, kind: str) -> None:
    check_unknown(named_api.post("push", b'"a"\n', kind, query_string={"ttl": 1}), "ttl")
    assert named_api.messages() == []


def test_the_list_of_queues_refuses_an_unknown_parameter(named_api: Api) -> None:
    check_unknown(named_api.http.get("/api/queues?limit=5"), "limit")


SENT_TWICE = [
    pytest.param(verb, parameter.name, id=f"{verb.method}-{verb.name}-{parameter.name}")
    for verb in VERBS
    for parameter in verb.parameters
    if parameter.in_query and parameter.name != "each"
]
EXAMPLES: dict[str, Any] = {
    "front": 1,
    "wait": 0,
    "max": 1,
    "offset": 0,
    "limit": 1,
    "preview": 5,
    "delay": 5,
    "dead": 1,
    "details": 1,
    "keep": 5,
    "lease": 30,
    "position": 0,
}


@pytest.mark.parametrize(("verb", "parameter"), SENT_TWICE)
def test_a_parameter_that_is_sent_twice_is_refused(named_api: Api, verb: Verb, parameter: str) -> None:
    valid = valid_fields(named_api)[verb.name]
    fields = {key: value for key, value in valid.items() if key != parameter}
    if parameter == "ids":
        fields["ids"] = fields.pop("id")
    value = EXAMPLES.get(parameter, valid.get(parameter, "a"))
    before = everything(named_api.client)
    send = getattr(named_api.http, verb.method.lower())
    body = {"json": fields} if verb.method == "POST" else {}
    path = f"{named_api.path}/{verb.name}"
    others = [] if body else [(one.name, fields[one.name]) for one in verb.parameters if one.name in fields]
    answers = [send(path, query_string=MultiDict([*others, (parameter, value), (parameter, value)]), **body)]
    if body:
        both = fields | {parameter: value}
        answers.append(send(path, query_string={parameter: value}, json=both))
        answers.append(send(path, query_string={parameter: value}, data=both))
    for answer in answers:
        assert parameter in check_error(answer, 400, "duplicate_key")["message"]
    assert everything(named_api.client) == before


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (JSON, '{"max": 1, "max": 1}'),
        (FORM, "max=1&max=1"),
        (FORM, '{"max": 1, "max": 2}'),
    ],
)
def test_a_field_that_is_sent_twice_in_the_body_is_refused(named_api: Api, kind: str, body: str) -> None:
    push(named_api, "a")
    assert "max" in check_error(named_api.post("pop", body, kind), 400, "duplicate_key")["message"]
    assert named_api.messages() == [b"a"]


@pytest.mark.parametrize(
    ("verb", "query", "fields"),
    [
        ("push", {"message": "a"}, {}),
        ("push", {"message": "a"}, {"message": "a"}),
        ("push", {"messages": "a"}, {"message": "b"}),
        ("remove", {"message": "a"}, {"position": 0}),
    ],
)
def test_a_message_in_the_query_is_refused(api: Api, verb: str, query: dict[str, str], fields: dict[str, Any]) -> None:
    push(api, "a")
    found = check_error(api.post(verb, json=fields, query_string=query), 400, "bad_parameter")
    assert found["parameter"] in query
    assert "body" in found["message"]
    assert api.messages() == [b"a"]


@pytest.mark.parametrize("kind", [TEXT, BYTES, NDJSON])
def test_a_message_in_the_query_is_refused_beside_one_in_the_body(named_api: Api, kind: str) -> None:
    found = check_error(named_api.post("push", b'"a"', kind, query_string={"message": "b"}), 400, "bad_parameter")
    assert found["parameter"] == "message"
    assert named_api.messages() == []


def test_each_is_line_and_is_sent_once(named_api: Api) -> None:
    for query, error in [
        ("each=line&each=line", "duplicate_key"),
        ("each=word", "bad_parameter"),
        ("each=", "bad_parameter"),
    ]:
        check_error(named_api.post(f"push?{query}", b"a", TEXT), 400, error)
    check_error(named_api.post("push?each=line", {"message": "a"}), 415, "unsupported_type")
    assert named_api.messages() == []
