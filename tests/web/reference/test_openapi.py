"""The OpenAPI document says what the code and docs/api.md say, and its examples are what a server answers."""

import json
import re
import urllib.error
import urllib.request
from typing import Any
from urllib.parse import urlencode

import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

from app import create_app
from settings import Settings
from tests.servers import App
from tests.test_docs import CODE, REFERENCE, parameters_of, sections
from web.operations import VERBS
from web.reference.openapi import document
from web.reference.texts import CODES, EVERY_GET, EVERY_POST, EVERY_ROUTE, PARAMETER_DOCS, ROUTES, SCHEMAS


def make(**settings: Any) -> dict[str, Any]:
    """Return the document as a client gets it."""
    found = Settings(**settings)
    made: dict[str, Any] = json.loads(json.dumps(document(found, create_app(found))))
    return made


DOCUMENT = make()
METHODS = ("get", "post")


def operations(of: dict[str, Any] = DOCUMENT) -> dict[str, dict[str, Any]]:
    """Return the operations of a document by method and address."""
    return {f"{method.upper()} {path}": item[method] for path, item in of["paths"].items() for method in item}


@pytest.mark.parametrize("tokens", [(), (b"long-enough",)], ids=["open", "with a token"])
def test_the_document_is_valid_openapi(tokens: tuple[bytes, ...]) -> None:
    made = make(api_tokens=tokens, url_prefix="/queue")
    assert [str(error) for error in OpenAPIV31SpecValidator(made).iter_errors()] == []
    assert made["servers"] == [{"url": "/queue"}]
    ids = [operation["operationId"] for operation in operations(made).values()]
    assert len(ids) == len(set(ids)) and {"push", "pop", "ack", "push_named", "get_result"} <= set(ids)


def test_a_token_is_needed_where_one_is_set_but_for_the_health_probe() -> None:
    made = make(read_tokens=(b"long-enough",))
    assert made["security"] == [{"bearer": []}, {"session": []}]
    assert [key for key, one in operations(made).items() if "security" in one] == ["GET /healthz"]
    assert "security" not in DOCUMENT and "securitySchemes" not in DOCUMENT["components"]


def test_every_route_of_the_api_is_in_the_document_and_no_other() -> None:
    rules = [rule for rule in create_app(Settings()).url_map.iter_rules() if rule.endpoint.startswith("api.")]
    routes = {
        f"{method} {rule.rule.replace('<any:name>', '{name}')}"
        for rule in rules
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
    }
    assert set(operations()) == routes


def test_nothing_is_said_of_what_does_not_exist() -> None:
    said = {key.partition(" ")[2] for key in ROUTES}
    assert {f"{verb.method} {verb.name}" for verb in VERBS} == {key for key in ROUTES if " /" not in key}
    assert {path for path in said if path.startswith("/")} >= {
        path for path in DOCUMENT["paths"] if "queue/" not in path
    }
    named = {f"{verb.name}.{one.name}" for verb in VERBS for one in verb.parameters} | {"match"}
    assert {key for key in PARAMETER_DOCS if "." in key} <= named
    assert {key for key in PARAMETER_DOCS if "." not in key} <= {name.rpartition(".")[2] for name in named}
    used = set(re.findall(r"#/components/schemas/(\w+)", json.dumps(DOCUMENT)))
    assert used == set(DOCUMENT["components"]["schemas"])
    assert set(SCHEMAS) <= used


# --- line by line with docs/api.md


def words(schema: dict[str, Any]) -> str:
    """Return type and bounds of a parameter as docs/api.md writes them, but for its unit."""
    if "$ref" in schema:
        return "message"
    low, high = (format(schema.get(bound, 0), ".0f") for bound in ("minimum", "maximum"))
    items = "messages" if "$ref" in schema.get("items", {}) else "texts"
    kinds = {
        "integer": f"integer, {low} to {high}",
        "number": f"number, {low} to {high}",
        "boolean": "1 or 0",
        "array": f"list of 1 to {schema.get('maxItems')} {items}",
        "string": " or ".join(f"`{word}`" for word in schema.get("enum", [])) or string_words(schema),
    }
    return kinds[schema["type"]]


def string_words(schema: dict[str, Any]) -> str:
    if pattern := schema.get("pattern"):
        return "1 to 255 visible ASCII characters" if pattern == "^[!-~]{1,255}$" else "queue name"
    longest, shortest = schema.get("maxLength"), schema.get("minLength")
    if longest is None:
        return "text"
    return f"text, {shortest} to {longest} characters" if shortest else f"text, up to {longest} characters"


def written(default: Any) -> str:
    """Return a default as docs/api.md writes it."""
    return "" if default is None else str(int(default) if isinstance(default, bool) else default)


def fields_of(operation: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the schema of each parameter. Where it may be in the body too it has its default there alone."""
    found: dict[str, dict[str, Any]] = {}
    body = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema", {})
    for one in body.get("anyOf", [body] if body else []):
        named = DOCUMENT["components"]["schemas"][one["$ref"].rpartition("/")[2]]
        for name, schema in named["properties"].items():
            shown = {key: value for key, value in schema.items() if key != "description"}
            assert found.setdefault(name, shown) == shown
    for one in operation["parameters"]:
        if one["in"] == "query":
            shown = found.setdefault(one["name"], one["schema"])
            assert shown == one["schema"] | {key: shown[key] for key in ("default",) if key in shown}
    return found


@pytest.mark.parametrize("route", [title for title in sections() if title in operations()])
def test_a_route_is_in_the_document_as_in_the_reference(route: str) -> None:
    operation, section = operations()[route], sections()[route]
    rows = parameters_of(section)
    fields = fields_of(operation)
    assert set(fields) == set(rows)
    for name, (kind, default, text) in rows.items():
        schema = fields[name]
        unit = re.search(r"\d (seconds|characters)$", kind) if schema.get("type") in ("integer", "number") else None
        assert words(schema) == kind.removesuffix(f" {unit[1]}" if unit else "").removesuffix(
            ", or separated by commas"
        )
        assert (default if default != "required" else "") == written(schema.get("default"))
        in_query = [one for one in operation["parameters"] if one["name"] == name]
        assert ("in the body only" in text) == (not in_query)
        about = str(in_query[0]["description"] if in_query else "")
        assert (f" In {unit[1]}." in about) if unit and in_query else " In seconds." not in about
        assert (f" By default {default}." in about) == (default not in ("", "0", "required"))
    codes = set(CODE.findall(section.partition("Errors:")[2].partition("```")[0]))
    key = route.replace("/api/queue/", "")
    assert set(ROUTES[key].codes) == codes
    assert ("`Idempotency-Key` header" in section) == any(one["in"] == "header" for one in operation["parameters"])
    named = operations().get(route.replace("/api/queue/", "/api/queue/{name}/"))
    if named and route.count("/queue/"):
        assert named["parameters"][1:] == operation["parameters"]
        assert {key: named[key] for key in ("responses", "summary")} == {
            key: operation[key] for key in ("responses", "summary")
        }


def test_the_error_codes_are_those_of_the_reference() -> None:
    rows = re.findall(r"^\| `([a-z0-9_]+)` \| (\d{3}) \| (.*?) \| .*? \|$", REFERENCE, re.M)
    assert {code: (int(status), when) for code, status, when in rows} == CODES
    everywhere = REFERENCE.partition("These codes can come")[2].partition("Below,")[0]
    for text, codes in zip(
        re.split(r"A `POST` can also|a `GET` with", everywhere), (EVERY_ROUTE, EVERY_POST, EVERY_GET), strict=True
    ):
        assert set(CODE.findall(text)) == set(codes)
    for operation in operations().values():
        for status, response in operation["responses"].items():
            codes = DOCUMENT["components"]["responses"].get(response.get("$ref", "").rpartition("/")[2], {})
            for code in codes.get("x-error-codes", []):
                assert CODES[code][0] == int(status)


# --- the streams, which never end


def test_the_streams_answer_as_documented(site: App, name: str) -> None:
    for key, operation in operations().items():
        if "text/event-stream" not in operation["responses"]["200"].get("content", {}):
            continue
        url = site.url + key.removeprefix("GET ").replace("{name}", name)
        with urllib.request.urlopen(url) as stream:
            assert stream.headers["Content-Type"] == "text/event-stream; charset=utf-8"
            assert re.match(rb"(retry: \d+\n\n)?event: (queue|queues)\ndata: {.*}\n\n", read_event(stream))
        for method, query, status, code in [
            ("GET", "?x=1", 400, "unknown_parameter"),
            ("POST", "", 405, "method_not_allowed"),
        ]:
            with pytest.raises(urllib.error.HTTPError) as refused:
                urllib.request.urlopen(urllib.request.Request(url + query, method=method))
            response = operation["responses"][str(status)]["$ref"].rpartition("/")[2]
            assert (refused.value.code, json.load(refused.value)["error"]) == (status, code)
            assert code in DOCUMENT["components"]["responses"][response]["x-error-codes"]


def read_event(stream: Any) -> bytes:
    """Return what a stream says up to the end of its first event."""
    said = b""
    while b"data: " not in said or not said.endswith(b"\n\n"):
        said += stream.readline()
    return said


# --- the examples


STORY = [  # in an order in which each answers what its example shows
    *("POST push", "GET count", "GET all", "POST reserve", "GET reserved", "POST extend", "POST release"),
    *("GET delayed", "POST push", "POST reserve", "POST ack", "POST push", "POST remove", "POST push"),
    *("POST clear", "POST restore", "POST pop", "POST push", "POST move", "POST pause", "POST resume"),
    *("POST result", "GET result", "GET /api/queues", "GET /healthz"),
]


def shape(value: Any) -> Any:
    """Return the keys and types of an answer."""
    if isinstance(value, dict):
        return {key: shape(one) for key, one in value.items()}
    if isinstance(value, list):
        return [shape(value[0])] if value else []
    return "number" if isinstance(value, (int, float)) and not isinstance(value, bool) else type(value).__name__


def test_the_examples_are_what_a_server_answers(site: App, name: str) -> None:
    given: dict[str, Any] = {}
    for route in STORY:
        example, (method, _, verb) = ROUTES[route].example, route.partition(" ")
        assert example, route
        path = verb if verb.startswith("/") else f"/api/queue/{name}/{verb}"
        query = example.query | ({"match": name + "*"} if verb == "/api/queues" else {})
        body = {**(example.body or {})}
        body |= {key: given[key] for key in ("id", "undo") if key in body} | (
            {"to": name + "-2"} if "to" in body else {}
        )
        asked = urllib.request.Request(
            f"{site.url}{path}?{urlencode(query)}",
            json.dumps(body).encode() if body else None,
            {"Content-Type": "application/json"} if body else {},
            method=method,
        )
        with urllib.request.urlopen(asked) as response:
            answer = json.load(response)
        assert shape(answer) == shape(example.answer), route
        given |= answer
    assert {key for key, route in ROUTES.items() if route.example} == set(STORY)


@pytest.mark.parametrize("media", ["text/plain", "application/octet-stream"])
def test_a_body_that_is_the_message_is_not_empty(site: App, name: str, media: str) -> None:
    content = operations()["POST /api/queue/push"]["requestBody"]["content"]
    assert content[media]["schema"]["minLength"] == 1
    asked = urllib.request.Request(f"{site.url}/api/queue/{name}/push", b"", {"Content-Type": media}, method="POST")
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(asked)
    assert json.load(refused.value)["error"] == "empty_message"
