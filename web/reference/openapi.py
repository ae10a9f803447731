"""The API as an OpenAPI 3.1 document, made from the rows of the operations and of the error codes."""

from collections.abc import Iterator, Sequence
from http import HTTPStatus
from pathlib import Path
from typing import Any

from flask import Flask, current_app

from settings import Settings
from web import __version__
from web.access.auth import PUBLIC_ENDPOINTS
from web.errors import ERRORS, Raised
from web.input.body import BYTES, FORM, JSON, TEXT
from web.input.codec import compact
from web.input.object_list import ObjectList, object_schema_of
from web.input.parameters import (
    MAX_NAMES,
    VISIBLE_ASCII,
    Message,
    MessageList,
    MessageParameter,
    Parameter,
    QueueName,
    TextList,
)
from web.input.raw_json import NDJSON
from web.operations.operation import Answer, Example, Operation, operation
from web.operations.schemas import NOTHING, SHARED, JsonAnswer, Schema, ref, text
from web.operations.shared import GROUPS, SERVICE
from web.request import Request

GUIDE = (Path(__file__).parent / "guide.md").read_text(encoding="utf-8")
CONVENTIONS = GUIDE.partition("## Conventions\n")[2].partition("<!-- operations -->")[0].strip()  # of every operation
RETRY_AFTER = ("Retry-After", "Seconds after which to try again.", {"type": "string"})
HEADERS = {  # of errors, by status
    401: ("WWW-Authenticate", "The scheme of the token: Bearer.", {"type": "string"}),
    405: ("Allow", "The methods of this path.", {"type": "string"}),
    429: RETRY_AFTER,
    503: RETRY_AFTER,
}
IDEMPOTENCY_KEY = {
    "name": "Idempotency-Key",
    "in": "header",
    "description": "Repeat a request with the same key within 24 hours to get the same answer, without repeating the "
    "work.",
    "schema": {"type": "string", "pattern": f"^{VISIBLE_ASCII.pattern}$"},
}
SECURITY = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "A token of API_TOKEN; for GET, also of READ_TOKEN."},
    "session": {
        "type": "apiKey",
        "in": "cookie",
        "name": "queue_session",
        "description": "The session of the page, after signing in. The name of the cookie has a suffix for each token.",
    },
}
WARNING = text("To a form: decoding changed a text that was not escaped.")
CLOUD_EVENT = "application/cloudevents+json"
MEDIA_SCHEMAS: dict[str, Schema] = {BYTES: {"type": "string", "format": "binary"}}  # any other is plain text


def document(settings: Settings, app: Flask) -> dict[str, Any]:
    """Return the OpenAPI document of an app."""
    paths: dict[str, Any] = {}
    schemas = dict(SHARED)
    responses: dict[str, Any] = {}
    for rule in app.url_map.iter_rules():
        found = app.view_functions[rule.endpoint]
        if isinstance(found, Operation):
            is_named = "name" in rule.arguments
            path = rule.rule.replace("<any:name>", "{name}")
            described = describe(found, is_named, bool(settings.tokens), responses)
            paths.setdefault(path, {})[found.method.lower()] = described
            schemas |= answer_schemas(found) | body_schemas(found)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Seequeue",
            "version": __version__,
            "summary": "A message queue that you can see.",
            "description": CONVENTIONS,
            "contact": {"name": "The Seequeue contributors"},
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": settings.url_prefix or "/"}],
        "security": [{name: []} for name in SECURITY] if settings.tokens else [],
        "tags": [{"name": name, "description": about} for name, about in GROUPS.items()],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "responses": responses,
            **({"securitySchemes": SECURITY} if settings.tokens else {}),
        },
    }


def describe(operation: Operation, is_named: bool, has_tokens: bool, responses: dict[str, Any]) -> dict[str, Any]:
    """Return the part about an operation at one of its paths; its errors are added to `responses`, which many share."""
    found = {
        "operationId": operation.id + ("_named" if is_named else ""),
        "tags": [operation.group],
        "summary": operation.about[0].rstrip("."),
        "description": "\n\n".join(operation.about),
        "parameters": [*parameters(operation, is_named)],
        "responses": {**answers(operation), **errors(operation, responses)},
    }
    if body := request_body(operation):
        found["requestBody"] = body
    if has_tokens and f"api.{operation.id}" in PUBLIC_ENDPOINTS:
        found["security"] = []
    return found


# --- requests


def parameters(operation: Operation, is_named: bool) -> Iterator[dict[str, Any]]:
    """Yield the parameters in the path, the query string and the headers."""
    if is_named:
        name = {"name": "name", "in": "path", "required": True, "description": "Name of the queue."}
        if operation.several:
            name["description"] = f"Name of the queue, or up to {MAX_NAMES} names in order, separated by commas."
        yield {**name, "schema": QueueName("name").schema(MAX_NAMES if operation.several else 1)}
    is_get = operation.method == "GET"
    for parameter in operation.parameters:
        if parameter.in_query:
            # A parameter of a POST may be in the body instead, so it is not required here, and it has its default
            # there: a generated client that sends every default would send it twice.
            in_query: dict[str, Any] = {"name": parameter.name, "in": "query", "description": about(parameter)}
            if parameter.required and is_get:
                in_query["required"] = True
            in_query["schema"] = schema_of(parameter) if is_get else parameter.schema()
            if isinstance(parameter, TextList):
                in_query["explode"] = False
            if is_get and operation.example and parameter.name in operation.example.sent:
                in_query["example"] = operation.example.sent[parameter.name]
            yield in_query
    if operation.idempotent:
        yield IDEMPOTENCY_KEY


def about(parameter: Parameter) -> str:
    """Return the description of a parameter: its purpose, unit and default."""
    unit = getattr(parameter, "unit", "")
    text = f"{parameter.doc} In {unit}." if unit else parameter.doc
    return f"{text} By default {parameter.default}." if parameter.default else text


def schema_of(parameter: Parameter) -> Schema:
    """Return type, bounds and default of a parameter."""
    default = parameter.default
    return parameter.schema() | ({} if default is None or default == () else {"default": default})


def request_body(operation: Operation) -> dict[str, Any] | None:
    """Return the part about the body of an operation; None if it takes none."""
    if operation.lines:
        about = "A stream of JSON objects, one per line, as in `x-line-schema`."
        lines = {"type": "string", "description": about, "x-line-schema": object_schema_of(operation.lines)}
        example = {"example": compact(operation.example.sent) + "\n"} if operation.example else {}
        return {"required": True, "content": {NDJSON: {"schema": lines, **example}}}
    schemas = body_schemas(operation)
    if not schemas:
        return None
    forms = [ref(name) for name in schemas if name.endswith("Form")]
    as_json = [ref(name) for name in schemas if not name.endswith("Form")]
    content: dict[str, Any] = {JSON: {"schema": as_json[0] if len(as_json) == 1 else {"anyOf": as_json}}}
    if forms:
        content[FORM] = {"schema": forms[0]}
    if operation.example and operation.example.sent:
        content[JSON]["example"] = operation.example.sent
    if lists := [field.name for field in operation.parameters if isinstance(field, TextList)]:
        content[FORM]["encoding"] = {name: {"style": "form", "explode": False} for name in lists}
    if operation.raw_body:
        content[TEXT] = {"schema": {"type": "string", "minLength": 1}}
        content[BYTES] = {"schema": MEDIA_SCHEMAS[BYTES] | {"minLength": 1}}
        about = "The message itself. Any other +json type and any other JSON value are accepted too."
        content[CLOUD_EVENT] = {"schema": {"type": "object", "description": about}}
    if operation.streams:
        content[NDJSON] = {"schema": {"type": "string", "description": "A stream of JSON values, one per line."}}
    return {"required": not forms or any("required" in schema for schema in schemas.values()), "content": content}


def body_schemas(operation: Operation) -> dict[str, Schema]:
    """Return the schemas of a body by name: as a form, and as JSON, where a list of messages has its own."""
    fields = [field for field in operation.parameters if field.in_body]
    if operation.method == "GET" or not fields:
        return {}
    name = "".join(word.capitalize() for word in operation.id.split("_"))
    lists = [field for field in fields if isinstance(field, MessageList)]
    others = [field for field in fields if field not in lists]
    found = {name: object_schema(others, operation.streams)}
    if not any(isinstance(field, ObjectList) for field in others):
        found = {name + "Form": object_schema(others, operation.streams, is_form=True)} | found
    if lists:
        beside = [field for field in others if not isinstance(field, Message)]
        found[name + "Many"] = object_schema(lists + beside, operation.streams)
    return found


def object_schema(fields: Sequence[Parameter], needs_messages: bool, is_form: bool = False) -> Schema:
    """Return the schema of an object of parameters. One that can be in the query string is not required here."""
    required = [
        field.name for field in fields if isinstance(field, MessageParameter) and (field.required or needs_messages)
    ]
    return {
        "type": "object",
        "properties": {
            field.name: {
                **({"type": "string", "minLength": 1} if is_form and isinstance(field, Message) else schema_of(field)),
                "description": about(field),
            }
            for field in fields
        },
        **({"required": required} if required else {}),
        "additionalProperties": False,
    }


# --- answers


def answer_schemas(operation: Operation) -> dict[str, Schema]:
    """Return the schemas of the answers by name; those to a form can have a warning."""
    found = {answer.name: answer.schema for answer in operation.answers}
    if body_schemas(operation):
        for name, schema in found.items():
            if "properties" in schema and schema is not NOTHING.schema:
                found[name] = {**schema, "properties": {**schema["properties"], "warning": WARNING}}
    return found


def answers(operation: Operation) -> dict[str, Any]:
    """Return the answers that are not errors."""
    content: dict[str, Any] = {}
    if operation.answers:
        schemas = [ref(answer.name) for answer in operation.answers]
        content[JSON] = {"schema": schemas[0] if len(schemas) == 1 else {"anyOf": schemas}}
        if operation.example and isinstance(operation.example.answer, dict):
            content[JSON]["example"] = operation.example.answer
    for kind in operation.media:
        content[kind] = {"schema": MEDIA_SCHEMAS.get(kind, {"type": "string"})}
    found = {"200": {"description": "Done, or nothing to do.", "content": content}}
    if TEXT in operation.media and operation.answers:
        found["204"] = {"description": f"With `Accept: {TEXT}`: there is no message."}
    return found


def codes_of_any(method: str) -> list[str]:
    """Return the codes with which any request with a method can fail."""
    return [code for code, row in ERRORS.items() if row.raised in (Raised.ANY, Raised(method))]


def errors(operation: Operation, responses: dict[str, Any]) -> dict[str, Any]:
    """Return references to the errors of an operation by status, which are added to `responses`."""
    common = codes_of_any(operation.method)
    possible = {*common, *operation.errors}
    found: dict[str, Any] = {}
    for status in sorted({ERRORS[code].status for code in possible} - {200}):
        codes = [code for code in ERRORS if code in possible and ERRORS[code].status == status]
        is_common = all(code in common for code in codes)
        name = f"{operation.method.capitalize() if is_common else operation.id}{status}"
        responses[name] = error_response(status, codes)
        found[str(status)] = {"$ref": f"#/components/responses/{name}"}
    return found


def error_response(status: int, codes: Sequence[str]) -> dict[str, Any]:
    """Return the part about the errors of one status."""
    response: dict[str, Any] = {
        "description": "\n".join(
            [f"{HTTPStatus(status).phrase}:", *(f"* `{code}`: {ERRORS[code].sentence}" for code in codes)]
        ),
        "content": {JSON: {"schema": ref("Error")}},
        "x-error-codes": list(codes),
    }
    if status in HEADERS:
        name, text, schema = HEADERS[status]
        response["headers"] = {name: {"description": text, "required": True, "schema": schema}}
    return response


def groups(made: dict[str, Any]) -> list[tuple[str, list[tuple[str, str, dict[str, Any]]]]]:
    """Return the operations of a document by tag, as method, path and description, each on the default queue only."""
    found: dict[str, list[tuple[str, str, dict[str, Any]]]] = {tag["name"]: [] for tag in made["tags"]}
    for path, item in made["paths"].items():
        for method, described in item.items():
            if "{name}" not in path:
                found[described["tags"][0]].append((method.upper(), path, described))
    return list(found.items())


@operation(
    "GET",
    SERVICE,
    path="/api/openapi.json",
    answers=(JsonAnswer("OpenAPI", {"type": "object", "description": "The document."}),),
    example=Example('{"openapi":"3.1.0"\n', pipe="cut -c 1-18"),
)
def openapi(request: Request) -> Answer:
    """Return the API as an OpenAPI 3.1 document, for client generators, Postman and the like.

    The page `/api/docs` shows the same, with a form to try each call.
    """
    return document(request.settings, current_app)
