"""push, pop, count and all, as the routes answer them: every row of the contract."""

import subprocess
import sys
from typing import Any

import pytest
import simplejson

from app import app
from tests.conftest import Api
from tests.servers import ROOT

EMPTY = {"success": False, "error": "empty", "message": "The queue is empty."}
COUNTS = {"reserved": 0, "dead": 0, "waiters": 0}


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
    answer = api.post("push", json={"messages": taken}, query_string={"next": 1})
    assert answer.json == {"success": True, "pushed": 2, "count": 3}
    assert api.messages() == [b"a", b"b", b"c"]


@pytest.mark.parametrize(
    ("value", "first"), [("1", "x"), ("true", "x"), ("0", "a"), ("false", "a")], ids=lambda value: str(value)
)
def test_push_next_is_a_flag(api: Api, value: str, first: str) -> None:
    api.post("push", json={"message": "a"})
    api.post("push", json={"message": "x"}, query_string={"next": value})
    assert api.post("pop").json["message"] == first


@pytest.mark.parametrize("value", ["", "2", "yes", "-1", "TRUE"])
def test_push_refuses_what_is_no_flag(api: Api, value: str) -> None:
    answer = api.post("push", json={"message": "a"}, query_string={"next": value})
    assert (answer.status_code, answer.json["error"], answer.json["parameter"]) == (400, "bad_parameter", "next")
    assert api.messages() == []


def test_push_reads_next_from_the_body_as_well(api: Api) -> None:
    api.post("push", json={"message": "a"})
    api.post("push", json={"message": "b", "next": True})
    api.post("push", "message=c&next=1", "application/x-www-form-urlencoded")
    assert api.messages() == [b"c", b"b", b"a"]


def test_pop_answers_the_oldest_message_then_empty(api: Api) -> None:
    api.post("push", json={"messages": ["a", "b"]})
    for message in "ab":
        answer = api.post("pop")
        assert (answer.status_code, answer.json) == (200, {"success": True, "message": message})
    answer = api.post("pop")
    assert (answer.status_code, answer.json) == (200, EMPTY)


def test_pop_max_answers_a_list_whatever_it_holds(api: Api) -> None:
    api.post("push", json={"messages": ["a", "b", "c"]})
    assert api.post("pop", query_string={"max": 2}).json == {"success": True, "messages": ["a", "b"]}
    assert api.post("pop", query_string={"max": 1}).json == {"success": True, "messages": ["c"]}
    answer = api.post("pop", query_string={"max": 1000})
    assert (answer.status_code, answer.json) == (200, {**EMPTY, "messages": []})


@pytest.mark.parametrize(
    "request_of_two",
    [
        {"query_string": {"max": "2"}},
        {"json": {"max": 2}},
        {"json": {"max": "2"}},
        {"data": "max=2", "kind": "application/x-www-form-urlencoded"},
        {"data": '{"max": 2}', "kind": "application/x-www-form-urlencoded"},
    ],
    ids=["query", "JSON", "JSON text", "form", "JSON with curl's type"],
)
def test_pop_reads_max_from_query_and_body(api: Api, request_of_two: dict[str, Any]) -> None:
    api.post("push", json={"messages": ["a", "b", "c"]})
    assert api.post("pop", **request_of_two).json["messages"] == ["a", "b"]


@pytest.mark.parametrize(
    "most", ["0", "1001", "-1", "1.0", "1e2", " 1", "+1", "", "x", "٣", "9" * 5000, "1\n", "0x1", "1_0"]
)
def test_pop_refuses_a_bad_max_and_takes_nothing(api: Api, most: str) -> None:
    api.post("push", json={"message": "a"})
    answer = api.post("pop", query_string={"max": most})
    assert (answer.status_code, answer.json["error"], answer.json["parameter"]) == (400, "bad_parameter", "max")
    assert answer.json["success"] is False
    assert api.messages() == [b"a"]


@pytest.mark.parametrize("most", ["[1]", "{}", "1.5", "-1", "true1", "1e400", "1" + "0" * 5000, '"\\ud800"', "false"])
def test_pop_refuses_a_bad_max_in_the_body(api: Api, most: str) -> None:
    api.post("push", json={"message": "a"})
    answer = api.post("pop", '{"max": %s}' % most, "application/json")  # noqa: UP031
    assert (answer.status_code, answer.json["success"]) == (400, False)
    assert api.messages() == [b"a"]


@pytest.mark.parametrize(
    ("accept", "plain"),
    [
        ("text/plain", True),
        ("text/plain, application/json;q=0.5", True),
        ("text/*", True),
        ("application/json", False),
        ("*/*", False),
        ("", False),
        ("application/json, text/plain", False),
        ("image/png", False),
        (";;;q=,/*\\", False),
        ("text/plain;q=0", False),
        ("text/plain;q=nonsense", False),
    ],
    ids=str,
)
def test_pop_gives_the_bare_message_to_those_who_ask_for_text(api: Api, accept: str, plain: bool) -> None:
    api.post("push", json={"message": "žluťoučký\n"})
    answer = api.post("pop", headers={"Accept": accept})
    if plain:
        assert (answer.data.decode(), answer.content_type) == ("žluťoučký\n", "text/plain; charset=utf-8")
    else:
        assert answer.json == {"success": True, "message": "žluťoučký\n"}
    answer = api.post("pop", headers={"Accept": accept})
    assert (answer.status_code, answer.data) == (204, b"") if plain else answer.json == EMPTY


def test_pop_gives_bytes_as_bytes_to_those_who_ask_for_text(api: Api) -> None:
    api.post("push", b"\xff\x00\n", "application/octet-stream")
    answer = api.post("pop", headers={"Accept": "text/plain"})
    assert (answer.data, answer.content_type) == (b"\xff\x00\n", "application/octet-stream")


def test_count_answers_numbers_and_the_first_versions_text(api: Api) -> None:
    assert api.get("count").json == {"success": True, "count": 0, "message": "0", **COUNTS}
    api.post("push", json={"messages": ["a", "b"]})
    answer = api.get("count")
    assert (answer.status_code, answer.json) == (200, {"success": True, "count": 2, "message": "2", **COUNTS})


def test_all_answers_every_message_next_to_be_popped_first(api: Api) -> None:
    assert api.get("all").json == {"success": True, "messages": [], "count": 0}
    api.post("push", json={"messages": ["a", "b", "c"]})
    for _ in range(2):
        answer = api.get("all")
        assert (answer.status_code, answer.json) == (200, {"success": True, "messages": ["a", "b", "c"], "count": 3})


@pytest.mark.parametrize("depth", [7, 1500])
def test_all_answers_windows(api: Api, depth: int) -> None:
    texts = [f"{number}" for number in range(depth)]
    api.post("push", json={"messages": texts})
    for offset, limit in [(0, 3), (3, 3), (5, 9), (9, 1), (0, 0), (depth - 1, 1), (depth, 5), (1, 1400), (10**12, 1)]:
        answer = api.get("all", query_string={"offset": offset, "limit": limit})
        assert answer.json == {"success": True, "messages": texts[offset : offset + limit], "count": depth}
    assert api.get("all", query_string={"offset": 2}).json["messages"] == texts[2:]


def test_all_previews_show_the_beginning_and_the_size(api: Api) -> None:
    api.post("push", json={"messages": ["ěšč", "🐎🐎", "ab", {"base64": "/w=="}, "x" * 100_000]})
    answer = api.get("all", query_string={"preview": 2})
    assert answer.json["messages"] == [
        {"preview": "ěš", "bytes": 6},
        {"preview": "🐎🐎", "bytes": 8},
        {"preview": "ab", "bytes": 2},
        {"preview": {"base64": "/w=="}, "bytes": 1},
        {"preview": "xx", "bytes": 100_000},
    ]


def test_all_as_ndjson_is_taken_back_by_push(api: Api) -> None:
    api.post("push", json={"messages": ["a", "two\nlines", {"base64": "/wA="}, "[1]"]})
    before = api.messages()
    answer = api.get("all", headers={"Accept": "application/x-ndjson"})
    assert (answer.status_code, answer.content_type) == (200, "application/x-ndjson")
    assert [simplejson.loads(line) for line in answer.data.splitlines()] == [
        "a",
        "two\nlines",
        {"base64": "/wA="},
        "[1]",
    ]
    assert api.post("push", answer.data, "application/x-ndjson").json["pushed"] == 4
    assert api.messages() == before + before


@pytest.mark.parametrize("parameter", ["offset", "limit", "preview"])
@pytest.mark.parametrize("value", ["-1", "x", "1.5", "9" * 30, ""])
def test_all_refuses_bad_numbers(api: Api, parameter: str, value: str) -> None:
    answer = api.get("all", query_string={parameter: value})
    assert (answer.status_code, answer.json["error"], answer.json["parameter"]) == (400, "bad_parameter", parameter)


@pytest.mark.parametrize("verb", ["push", "pop"])
def test_a_parameter_given_twice_is_refused(api: Api, verb: str) -> None:
    parameter = {"push": "next", "pop": "max"}[verb]
    answer = api.http.post(f"{api.path}/{verb}?{parameter}=1&{parameter}=1", json={"message": "a"})
    assert (answer.status_code, answer.json["error"]) == (400, "duplicate_key")
    assert api.messages() == []


# --- names, methods, paths


@pytest.mark.parametrize(
    "name", ["a", "A-Z.0_9:x", "x" * 128, "push", "count", "0", "..", "a.dead", "default"], ids=lambda n: n[:9]
)
def test_a_name_is_any_of_the_allowed_characters(api: Api, name: str) -> None:
    assert api.http.post(f"/api/queue/{name}/push", json={"message": "a"}).json["success"]
    assert api.http.post(f"/api/queue/{name}/pop").json == {"success": True, "message": "a"}


@pytest.mark.parametrize(
    "name",
    ["x" * 129, "a b", "a%2Fb", "a/b", "%00", "%C5%BE", "ž", "a%0A", "%0A", "a{b}", "*", "%", "%ff", "a%20", "a,b", ""],
)
@pytest.mark.parametrize("verb", ["push", "pop", "count", "all"])
def test_what_is_no_name_is_refused_never_repaired(api: Api, name: str, verb: str) -> None:
    before = app.config["CLIENT"].keys()
    send = api.http.post if verb in ("push", "pop") else api.http.get
    answer = send(f"/api/queue/{name}/{verb}", **({"json": {"message": "a"}} if verb == "push" else {}))
    assert (answer.status_code, answer.json["error"]) == (400, "bad_name")
    assert app.config["CLIENT"].keys() == before


@pytest.mark.parametrize(
    ("verb", "method", "allow"),
    [
        ("push", "GET", {"OPTIONS", "POST"}),
        ("pop", "GET", {"OPTIONS", "POST"}),
        ("pop", "HEAD", {"OPTIONS", "POST"}),
        ("push", "PUT", {"OPTIONS", "POST"}),
        ("pop", "DELETE", {"OPTIONS", "POST"}),
        ("count", "POST", {"GET", "HEAD", "OPTIONS"}),
        ("all", "PATCH", {"GET", "HEAD", "OPTIONS"}),
        ("all", "TRACE", {"GET", "HEAD", "OPTIONS"}),
    ],
)
def test_another_method_is_refused_with_those_that_work(api: Api, verb: str, method: str, allow: set[str]) -> None:
    app.config["CLIENT"].lpush(api.key, "a")
    answer = api.http.open(f"{api.path}/{verb}", method=method)
    assert (answer.status_code, set(answer.headers["Allow"].split(", "))) == (405, allow)
    if method != "HEAD":
        assert (answer.json["success"], answer.json["error"]) == (False, "method_not_allowed")
    assert api.messages() == [b"a"]


def test_head_answers_as_get_without_a_body(api: Api) -> None:
    for verb in ("count", "all"):
        answer = api.http.head(f"{api.path}/{verb}")
        assert (answer.status_code, answer.data, answer.content_type) == (200, b"", "application/json")


def test_options_says_what_works(api: Api) -> None:
    answer = api.http.options(f"{api.path}/push")
    assert (answer.status_code, set(answer.headers["Allow"].split(", "))) == (200, {"OPTIONS", "POST"})


@pytest.mark.parametrize(
    "path", ["/api/", "/api/nothing", "/api/queue", "/api/queue/a/b/nothing", "/api/queue//", "/api/queue/push/"]
)
def test_an_unknown_api_path_is_404_in_json(api: Api, path: str) -> None:
    answer = api.http.get(path)
    assert (answer.status_code, answer.json["success"], answer.json["error"]) == (404, False, "not_found")


@pytest.mark.parametrize("path", ["/nothing", "/apix", "/static/nothing.js", "/static/../app.py", "/favicon.nothing"])
def test_another_unknown_path_is_the_404_page(api: Api, path: str) -> None:
    answer = api.http.get(path)
    assert (answer.status_code, answer.mimetype) == (404, "text/html")
    assert 'href="/"' in answer.text


def test_the_404_page_shows_a_path_as_text(api: Api) -> None:
    assert "<script>" not in api.http.get("/<script>alert(1)</script>").text.split("</head>")[-1]


def test_answers_are_json_lines_that_are_not_cached(api: Api) -> None:
    answer = api.post("push", json={"message": "ž"})
    assert answer.content_type == "application/json"
    assert answer.data == '{"success":true,"message":"ž","count":1}\n'.encode()
    assert answer.headers["Cache-Control"] == "no-store"


def test_importing_the_app_opens_no_connection_and_starts_nothing() -> None:
    code = (
        "import socket, subprocess, threading\n"
        "def no(*a, **k): raise AssertionError('started something')\n"
        "socket.socket.connect = subprocess.Popen.__init__ = threading.Thread.start = no\n"
        "import app, RedisQueue\n"
        "assert app.app.name\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
