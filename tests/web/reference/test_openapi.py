"""The OpenAPI document: it is valid, says what the rows of the operations say, and streams answer as it says."""

import json
import re
import urllib.error
import urllib.request
from typing import Any

import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

from app import create_app
from settings import Settings
from tests.servers import App
from web.api import OPERATIONS
from web.errors import ERRORS
from web.operations.operation import Operation
from web.reference.openapi import document


def make(**settings: Any) -> dict[str, Any]:
    """Return the document as a client gets it."""
    found = Settings(**settings)
    made: dict[str, Any] = json.loads(json.dumps(document(found, create_app(found))))
    return made


DOCUMENT = make()
SCHEMAS, RESPONSES = DOCUMENT["components"]["schemas"], DOCUMENT["components"]["responses"]
each_operation = pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.id)


def described(of: dict[str, Any] = DOCUMENT) -> dict[str, dict[str, Any]]:
    """Return the operations of a document by method and path."""
    return {f"{method.upper()} {path}": item[method] for path, item in of["paths"].items() for method in item}


def at(operation: Operation, path: str) -> dict[str, Any]:
    return described()[f"{operation.method} {path.replace('<any:name>', '{name}')}"]


def codes_of(found: dict[str, Any]) -> dict[int, list[str]]:
    """Return the error codes of an operation by status."""
    names = {int(status): one["$ref"].rpartition("/")[2] for status, one in found["responses"].items() if "$ref" in one}
    return {status: RESPONSES[name]["x-error-codes"] for status, name in names.items()}


@pytest.mark.parametrize("tokens", [(), (b"long-enough",)], ids=["without a token", "with a token"])
def test_the_document_is_valid_and_says_what_linters_ask_for(tokens: tuple[bytes, ...]) -> None:
    made = make(api_tokens=tokens, url_prefix="/queue")
    assert [str(error) for error in OpenAPIV31SpecValidator(made).iter_errors()] == []
    assert made["servers"] == [{"url": "/queue"}]
    assert (made["info"]["title"], made["info"]["license"]["identifier"]) == ("Seequeue", "MIT")
    assert made["info"]["contact"] and made["info"]["description"] and "security" in made
    assert all(tag["description"] for tag in made["tags"])
    tags = {tag["name"] for tag in made["tags"]}
    for key, one in described(made).items():
        assert {*one["tags"]} <= tags and one["summary"] and one["description"] and one["operationId"], key
        assert all(parameter["description"] for parameter in one["parameters"]), key
        assert any(status.startswith("4") for status in one["responses"]), key
    ids = [one["operationId"] for one in described(made).values()]
    assert len(ids) == len(set(ids))


def test_a_token_is_needed_where_one_is_set_except_by_the_probes() -> None:
    made = make(read_tokens=(b"long-enough",))
    assert made["security"] == [{"bearer": []}, {"session": []}]
    assert [key for key, one in described(made).items() if "security" in one] == ["GET /healthz", "GET /livez"]
    assert DOCUMENT["security"] == [] and "securitySchemes" not in DOCUMENT["components"]


def test_every_route_of_the_api_is_described_and_every_schema_is_used() -> None:
    rules = [rule for rule in create_app(Settings()).url_map.iter_rules() if rule.endpoint.startswith("api.")]
    routes = {
        f"{method} {rule.rule.replace('<any:name>', '{name}')}"
        for rule in rules
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
    }
    assert described().keys() == routes
    assert set(re.findall(r"#/components/schemas/(\w+)", json.dumps(DOCUMENT))) == SCHEMAS.keys()


@each_operation
def test_an_operation_takes_each_parameter_where_its_row_says(operation: Operation) -> None:
    for path in operation.paths:
        found = at(operation, path)
        in_query = {one["name"] for one in found["parameters"] if one["in"] == "query"}
        assert in_query == {one.name for one in operation.parameters if one.in_query}
        assert ("{name}" in path.replace("<any:name>", "{name}")) == any(
            one["in"] == "path" for one in found["parameters"]
        )
        assert operation.idempotent == any(one["name"] == "Idempotency-Key" for one in found["parameters"])
        content = found.get("requestBody", {}).get("content", {})
        fields = {one.name for one in operation.parameters if one.in_body and operation.method == "POST"}
        assert fields_of(content.get("application/json", {}).get("schema", {})) == fields
        assert (operation.streams or operation.lines != ()) == ("application/x-ndjson" in content)
        for media in ("text/plain", "application/octet-stream"):
            assert content.get(media, {}).get("schema", {}).get("minLength") == (1 if operation.raw_body else None)


def fields_of(schema: dict[str, Any]) -> set[str]:
    """Return the fields of a body, whose schemas are alternatives."""
    names = [one["$ref"].rpartition("/")[2] for one in schema.get("anyOf", [schema]) if one]
    return {field for name in names for field in SCHEMAS[name]["properties"]}


@each_operation
def test_an_operation_lists_its_errors_under_their_statuses(operation: Operation) -> None:
    found = codes_of(at(operation, operation.paths[0]))
    listed = [code for codes in found.values() for code in codes]
    assert {code for code in operation.errors if ERRORS[code].status != 200} <= set(listed)
    assert {"internal", "redis_unavailable", "token_required"} <= set(listed)
    assert ("unexpected_body" in listed) == (operation.method == "GET")
    assert ("outcome_unknown" in listed) == (operation.method == "POST")
    assert all(ERRORS[code].status == status for status, codes in found.items() for code in codes)


def test_defaults_of_a_post_stand_in_its_body_only() -> None:
    """A generated client sends every default; in the query too, it would be sent twice."""
    lease = next(one for one in described()["POST /api/queue/reserve"]["parameters"] if one["name"] == "lease")
    assert "default" not in lease["schema"]
    assert SCHEMAS["Reserve"]["properties"]["lease"]["default"] == 30


# --- the streams, which schemathesis cannot read as they never end


@pytest.mark.parametrize("key", [key for key in described() if key.endswith("events")])
def test_a_stream_answers_as_documented(site: App, name: str, key: str) -> None:
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
        assert (refused.value.code, json.load(refused.value)["error"]) == (status, code)
        assert code in codes_of(described()[key])[status]


def read_event(stream: Any) -> bytes:
    """Return the text of a stream up to the end of its first event."""
    found = b""
    while b"data: " not in found or not found.endswith(b"\n\n"):
        found += stream.readline()
    return found
