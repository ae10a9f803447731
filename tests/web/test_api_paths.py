"""The paths of the API: queue names, methods, and the two routes of every operation on a queue."""

from typing import Any

import pytest

from tests.conftest import Api
from tests.web.helpers import JSON, check_error, everything, push
from web.api import OPERATIONS, find_operation
from web.operations.operation import Operation

ON_QUEUES = [one for one in OPERATIONS if not one.path]

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


@pytest.mark.parametrize("operation", ON_QUEUES, ids=lambda operation: operation.id)
def test_every_operation_has_a_route_for_the_default_queue_and_one_with_a_name(
    named_api: Api, operation: Operation
) -> None:
    router = named_api.app.url_map.bind("localhost")
    for path, values in [(f"/api/queue/{operation.name}", {}), (f"/api/queue/jobs/{operation.name}", {"name": "jobs"})]:
        assert router.match(path, method=operation.method) == (f"api.{operation.id}", values)
        assert find_operation(operation.method, path) == (operation, values.get("name"))


@pytest.mark.parametrize(
    "valid", ["a", "A-Z.0_9:x", "x" * 128, "push", "count", "0", "..", "a.dead", "default"], ids=lambda name: name[:9]
)
def test_a_name_is_any_of_the_allowed_characters(named_api: Api, valid: str) -> None:
    assert named_api.http.post(f"/api/queue/{valid}/push", json={"message": "a"}).json["success"]
    assert named_api.http.post(f"/api/queue/{valid}/pop").json == {"success": True, "message": "a"}


@pytest.mark.parametrize("invalid", INVALID_NAMES, ids=lambda name: name[:9])
def test_every_operation_refuses_an_invalid_name_and_never_repairs_it(named_api: Api, invalid: str) -> None:
    push(named_api, "a")
    before = everything(named_api.client)
    fields = {"id": "a", "position": 0, "message": "a", "undo": "a", "to": "a", "job": "a", "result": "a"}
    for operation in ON_QUEUES:
        if operation.several and invalid == "a,b":  # these are two valid names
            continue
        body: dict[str, Any] = {"json": fields} if operation.method == "POST" else {}
        answer = named_api.http.open(f"/api/queue/{invalid}/{operation.name}", method=operation.method, **body)
        check_error(answer, 400, "bad_name")
    assert everything(named_api.client) == before


@pytest.mark.parametrize(
    ("operation", "method", "allow"),
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
    api: Api, operation: str, method: str, allow: set[str]
) -> None:
    api.client.lpush(api.key, "a")
    answer = api.http.open(f"{api.path}/{operation}", method=method)
    assert (answer.status_code, set(answer.headers["Allow"].split(", "))) == (405, allow)
    if method != "HEAD":
        assert (answer.json["success"], answer.json["error"]) == (False, "method_not_allowed")
    assert api.messages() == [b"a"]


@pytest.mark.parametrize(
    "operation", [one for one in ON_QUEUES if one.method == "GET"], ids=lambda operation: operation.id
)
def test_a_get_changes_nothing(named_api: Api, operation: Operation) -> None:
    push(named_api, "a", "b")
    named_api.post("reserve", {"lease": "1000"})
    before = everything(named_api.client)
    required = {one.name: "a" for one in operation.parameters if one.required}
    answer = named_api.get(operation.name, query_string=required)
    assert answer.status_code == 200
    next(answer.iter_encoded())
    answer.close()
    assert everything(named_api.client) == before


def test_head_answers_as_get_without_a_body(api: Api) -> None:
    for operation in ("count", "all"):
        answer = api.http.head(f"{api.path}/{operation}")
        assert (answer.status_code, answer.data, answer.content_type) == (200, b"", JSON)


def test_options_names_the_methods_that_work(api: Api) -> None:
    answer = api.http.options(f"{api.path}/push")
    assert (answer.status_code, set(answer.headers["Allow"].split(", "))) == (200, {"OPTIONS", "POST"})


@pytest.mark.parametrize(
    "path", ["/api/", "/api/nothing", "/api/queue", "/api/queue/a/b/nothing", "/api/queue//", "/api/queue/push/"]
)
def test_an_unknown_api_path_is_404_in_json(named_api: Api, path: str) -> None:
    check_error(named_api.http.get(path), 404, "not_found")


def test_a_path_without_a_name_is_that_of_the_default_queue(default_api: Api) -> None:
    assert default_api.post("push", json={"message": "a"}).json["success"]
    keys = set(everything(default_api.client))
    assert keys and all(b"queue:default" in key for key in keys), keys
