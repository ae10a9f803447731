"""The paths of the API: queue names, methods, and the two routes of every verb."""

from typing import Any

import pytest

from tests.conftest import Api
from tests.web.helpers import JSON, check_error, everything, push
from tests.web.input.test_parameters import body_and_query, valid_fields
from web.operations import VERBS, Verb

INVALID_NAMES = [
    "x" * 129,
    "a b",
    "a%20b",
    "a%2Fb",
    "a/b",
    "%00",
    "%C5%BE",
    "%C3%A9",
    "ž",
    "a%0A",
    "%0A",
    "a{b}",
    "{a}",
    "*",
    "%",
    "%ff",
    "a%20",
    "a,b",
    "",
]


@pytest.mark.parametrize("verb", VERBS, ids=lambda verb: f"{verb.method}-{verb.name}")
def test_every_verb_has_a_route_for_the_default_queue_and_one_with_a_name(named_api: Api, verb: Verb) -> None:
    router = named_api.app.url_map.bind("localhost")
    for path, name in [(f"/api/queue/{verb.name}", None), (f"/api/queue/jobs/{verb.name}", "jobs")]:
        assert router.match(path, method=verb.method) == (f"api.{verb.method.lower()}_{verb.name}", {"name": name})


@pytest.mark.parametrize("verb", VERBS, ids=lambda verb: f"{verb.method}-{verb.name}")
def test_every_verb_without_a_name_works_on_the_default_queue(default_api: Api, verb: Verb) -> None:
    fields = valid_fields(default_api)[verb.name]
    with default_api.http.open(f"/api/queue/{verb.name}", method=verb.method, **body_and_query(verb, fields)) as answer:
        assert answer.status_code == 200
    keys = set(everything(default_api.client))
    assert keys and all(b"queue:default" in key for key in keys), keys


@pytest.mark.parametrize(
    "valid", ["a", "A-Z.0_9:x", "x" * 128, "push", "count", "0", "..", "a.dead", "default"], ids=lambda name: name[:9]
)
def test_a_name_is_any_of_the_allowed_characters(named_api: Api, valid: str) -> None:
    assert named_api.http.post(f"/api/queue/{valid}/push", json={"message": "a"}).json["success"]
    assert named_api.http.post(f"/api/queue/{valid}/pop").json == {"success": True, "message": "a"}


@pytest.mark.parametrize("invalid", INVALID_NAMES, ids=lambda name: name[:9])
def test_every_verb_refuses_an_invalid_name_and_never_repairs_it(named_api: Api, invalid: str) -> None:
    push(named_api, "a")
    before = everything(named_api.client)
    fields = {"id": "a", "position": 0, "message": "a", "undo": "a", "to": "a", "job": "a", "result": "a"}
    for verb in VERBS:
        body: dict[str, Any] = {"json": fields} if verb.method == "POST" else {}
        answer = named_api.http.open(f"/api/queue/{invalid}/{verb.name}", method=verb.method, **body)
        check_error(answer, 400, "bad_name")
    assert everything(named_api.client) == before


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
def test_another_method_is_refused_and_the_right_ones_are_named(
    api: Api, verb: str, method: str, allow: set[str]
) -> None:
    api.client.lpush(api.key, "a")
    answer = api.http.open(f"{api.path}/{verb}", method=method)
    assert (answer.status_code, set(answer.headers["Allow"].split(", "))) == (405, allow)
    if method != "HEAD":
        assert (answer.json["success"], answer.json["error"]) == (False, "method_not_allowed")
    assert api.messages() == [b"a"]


def test_every_verb_that_changes_something_is_a_post_and_every_other_a_get(api: Api) -> None:
    readers = {verb.name for verb in VERBS if verb.method == "GET"}
    assert readers == {"count", "all", "events", "reserved", "delayed", "result"}
    for verb in VERBS:
        if verb.name == "result":  # it is both
            continue
        other, allow = ("POST", {"GET", "HEAD", "OPTIONS"}) if verb.name in readers else ("GET", {"OPTIONS", "POST"})
        answer = api.http.open(f"{api.path}/{verb.name}", method=other)
        check_error(answer, 405, "method_not_allowed")
        assert set(answer.headers["Allow"].split(", ")) == allow
    check_error(api.http.post("/api/queues"), 405, "method_not_allowed")


def test_head_answers_as_get_without_a_body(api: Api) -> None:
    for verb in ("count", "all"):
        answer = api.http.head(f"{api.path}/{verb}")
        assert (answer.status_code, answer.data, answer.content_type) == (200, b"", JSON)


def test_options_names_the_methods_that_work(api: Api) -> None:
    answer = api.http.options(f"{api.path}/push")
    assert (answer.status_code, set(answer.headers["Allow"].split(", "))) == (200, {"OPTIONS", "POST"})


@pytest.mark.parametrize(
    "path", ["/api/", "/api/nothing", "/api/queue", "/api/queue/a/b/nothing", "/api/queue//", "/api/queue/push/"]
)
def test_an_unknown_api_path_is_404_in_json(named_api: Api, path: str) -> None:
    check_error(named_api.http.get(path), 404, "not_found")
