"""The API as an OpenAPI 3.1 document, made of the table of verbs and of what `reference.py` says of each route."""

import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from flask import Flask, current_app

from settings import Settings
from web import __version__
from web.input.body import BYTES, FORM, JSON, TEXT
from web.input.parameters import VISIBLE_ASCII, Message, MessageList, MessageParameter, Parameter, QueueName, TextList
from web.input.raw_json import NDJSON
from web.operations import (
    ALL_EVENTS_PARAMETERS,
    LIST_PARAMETERS,
    QUEUE_PATH,
    VERBS,
    Answer,
    Verb,
    query_arguments,
    refuse_idempotency_key,
)
from web.reference.texts import (
    CODES,
    EVERY_GET,
    EVERY_POST,
    EVERY_ROUTE,
    PARAMETER_DOCS,
    ROUTES,
    SCHEMAS,
    TAGS,
    Route,
    Schema,
    ref,
)
from web.request import current_request

ABOUT_API = (
    "A message queue over a plain Redis list. Each verb has two addresses: `/api/queue/<verb>` for the default queue "
    "and `/api/queue/<name>/<verb>` for any. A parameter goes in the query string or in the body, not in both; one "
    "that a verb does not know is refused. In JSON null is the same as leaving a parameter out, and a number may be "
    "text. Every answer has `success`, a boolean; on a failure `error` is a code for programs and `message` a sentence "
    "for people."
)
HEADERS = {  # of answers, by status
    401: ("WWW-Authenticate", "The scheme of the token: Bearer.", {"type": "string"}),
    405: ("Allow", "The methods of this address.", {"type": "string"}),
    429: ("Retry-After", "Seconds until it is reasonable to try again.", {"type": "string"}),
    503: ("Retry-After", "Seconds until it is reasonable to try again.", {"type": "string"}),
}
IDEMPOTENCY_KEY = {
    "name": "Idempotency-Key",
    "in": "header",
    "description": "The same key with the same request within 24 hours gives the same answer and does the work once. "
    "Streams of lines have none.",
    "schema": {"type": "string", "pattern": f"^{VISIBLE_ASCII.pattern}$"},
}
SECURITY = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "API_TOKEN; READ_TOKEN is enough for GET."},
    "session": {
        "type": "apiKey",
        "in": "cookie",
        "name": "queue_session",
        "description": "The session of the page, after signing in; its name goes on with what tells tokens apart.",
    },
}
OF_ALL_QUEUES = {"/api/queues": LIST_PARAMETERS, "/api/events": ALL_EVENTS_PARAMETERS}
MEDIA_SCHEMAS: dict[str, Schema] = {BYTES: {"type": "string", "format": "binary"}}  # any other is plain text


@dataclass(frozen=True)
class Operation:
    """One method of one address."""

    method: str
    path: str
    view: Callable[..., Any]
    parameters: tuple[Parameter, ...]
    route: Route
    verb: Verb | None = None  # None: it is not of a queue

    @property
    def is_named(self) -> bool:
        """Whether the address has the queue's name."""
        return "{name}" in self.path


def document(settings: Settings, app: Flask) -> dict[str, Any]:
    """Return the OpenAPI document of the app."""
    paths: dict[str, Any] = {}
    schemas = dict(SCHEMAS)
    responses: dict[str, Any] = {}
    for operation in operations(app):
        paths.setdefault(operation.path, {})[operation.method.lower()] = describe(operation, responses)
        schemas |= body_schemas(operation.verb, operation.route) if operation.verb else {}
    return {
        "openapi": "3.1.0",
        "info": {"title": "Queue", "version": __version__, "description": ABOUT_API},
        "servers": [{"url": settings.url_prefix or "/"}],
        **({"security": [{name: []} for name in SECURITY]} if settings.tokens else {}),
        "tags": [{"name": name} for name in TAGS],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "responses": responses,
            **({"securitySchemes": SECURITY} if settings.tokens else {}),
        },
    }


def operations(app: Flask) -> Iterator[Operation]:
    """Yield all that the API can do: each verb at both of its addresses, then the routes that are not of a queue."""
    for verb in VERBS:
        for path in (QUEUE_PATH + verb.name, f"{QUEUE_PATH}{{name}}/{verb.name}"):
            yield Operation(verb.method, path, verb.view, verb.parameters, ROUTES[f"{verb.method} {verb.name}"], verb)
    for rule in app.url_map.iter_rules():
        if rule.endpoint.startswith("api.") and not rule.rule.startswith(QUEUE_PATH):
            parameters = OF_ALL_QUEUES.get(rule.rule, ())
            yield Operation("GET", rule.rule, app.view_functions[rule.endpoint], parameters, ROUTES[f"GET {rule.rule}"])


def describe(operation: Operation, responses: dict[str, Any]) -> dict[str, Any]:
    """Return the document's part on an operation; its errors are added to `responses`, which many share."""
    route = operation.route
    about = route.about or " ".join((inspect.getdoc(getattr(operation.view, "func", operation.view)) or "").split())
    found = {
        "operationId": route.id + ("_named" if operation.is_named else ""),
        "tags": [route.tag],
        "summary": about.partition(". ")[0].rstrip("."),
        "description": about,
        "parameters": [*parameters(operation)],
        "responses": {**answers(route), **errors(operation, responses)},
    }
    if operation.verb and (body := request_body(operation.verb, route)):
        found["requestBody"] = body
    if operation.path == "/healthz":
        found["security"] = []
    return found


# --- what it takes


def parameters(operation: Operation) -> Iterator[dict[str, Any]]:
    """Yield what goes in the address and the headers."""
    if operation.is_named:
        yield {
            "name": "name",
            "in": "path",
            "required": True,
            "description": "The queue.",
            "schema": QueueName("name").schema(),
        }
    example = operation.route.example
    for parameter in operation.parameters:
        if parameter.in_query:
            in_query = in_address(operation, parameter)
            if example and parameter.name in example.query:
                in_query["example"] = example.query[parameter.name]
            yield in_query
    if operation.verb and operation.verb.idempotent:
        yield IDEMPOTENCY_KEY


def in_address(operation: Operation, parameter: Parameter) -> dict[str, Any]:
    """Return the document's part on a parameter in the query string."""
    is_get = operation.method == "GET"
    # A parameter of a POST may be in the body instead. Generated clients send each default, which would be twice then.
    return {
        "name": parameter.name,
        "in": "query",
        "description": about(operation, parameter),
        **({"required": True} if parameter.required and is_get else {}),
        "schema": schema_of(parameter) if is_get else parameter.schema(),
        **({"explode": False} if isinstance(parameter, TextList) else {}),
    }


def about(of: Operation | Verb, parameter: Parameter) -> str:
    """Return what a parameter is for, its unit and its default."""
    verb = of if isinstance(of, Verb) else of.verb
    text = PARAMETER_DOCS.get(f"{verb.name}.{parameter.name}" if verb else "") or PARAMETER_DOCS[parameter.name]
    unit = getattr(parameter, "unit", "")
    text += f" In {unit}." if unit else ""
    return f"{text} By default {parameter.default}." if parameter.default else text


def schema_of(parameter: Parameter) -> Schema:
    """Return type, bounds and default of a parameter."""
    default = parameter.default
    return parameter.schema() | ({} if default is None else {"default": default})


def request_body(verb: Verb, route: Route) -> dict[str, Any] | None:
    """Return the document's part on the body of a verb; None if it takes none."""
    schemas = body_schemas(verb, route)
    if not schemas:
        return None
    form, *as_json = map(ref, schemas)
    content: dict[str, Any] = {
        JSON: {"schema": as_json[0] if len(as_json) == 1 else {"anyOf": as_json}},
        FORM: {"schema": form},
    }
    if route.example and route.example.body:
        content[JSON]["example"] = route.example.body
    if lists := [one.name for one in verb.parameters if isinstance(one, TextList)]:
        content[FORM]["encoding"] = {name: {"style": "form", "explode": False} for name in lists}
    if verb.raw_body:
        content[TEXT] = {"schema": {"type": "string", "minLength": 1}}
        content[BYTES] = {"schema": MEDIA_SCHEMAS[BYTES] | {"minLength": 1}}
    if verb.streams:
        content[NDJSON] = {"schema": {"type": "string", "description": "A stream of JSON values, one a line."}}
    return {"required": any("required" in schema for schema in schemas.values()), "content": content}


def body_schemas(verb: Verb, route: Route) -> dict[str, Schema]:
    """Return the schemas of a verb's body by name: as a form, and as JSON; there a list of messages has its own."""
    fields = [one for one in verb.parameters if one.in_body]
    if verb.method == "GET" or not fields:
        return {}
    name = "".join(word.capitalize() for word in route.id.split("_"))
    lists = [one for one in fields if isinstance(one, MessageList)]
    one_message = [one for one in fields if one not in lists]
    found = {name + "Form": object_schema(verb, one_message, is_form=True), name: object_schema(verb, one_message)}
    if lists:
        found[name + "Many"] = object_schema(verb, lists + [one for one in one_message if not isinstance(one, Message)])
    return found


def object_schema(verb: Verb, fields: Sequence[Parameter], is_form: bool = False) -> Schema:
    """Return the schema of an object of parameters. What can be in the query string instead is not required here."""
    required = [one.name for one in fields if isinstance(one, MessageParameter) and (one.required or verb.streams)]
    return {
        "type": "object",
        "properties": {
            one.name: {
                **({"type": "string", "minLength": 1} if is_form and isinstance(one, Message) else schema_of(one)),
                "description": about(verb, one),
            }
            for one in fields
        },
        **({"required": required} if required else {}),
        "additionalProperties": False,
    }


# --- what it answers


def answers(route: Route) -> dict[str, Any]:
    """Return the answers that are not errors."""
    content: dict[str, Any] = {}
    if route.answers:
        schemas = [ref(name) for name in route.answers]
        content[JSON] = {"schema": schemas[0] if len(schemas) == 1 else {"anyOf": schemas}}
        if route.example:
            content[JSON]["example"] = route.example.answer
    for kind in route.media:
        content[kind] = {"schema": MEDIA_SCHEMAS.get(kind, {"type": "string"})}
    found = {"200": {"description": "Done, or nothing to do.", "content": content}}
    if TEXT in route.media and route.answers:
        found["204"] = {"description": f"With `Accept: {TEXT}`: there is no message."}
    return found


def errors(operation: Operation, responses: dict[str, Any]) -> dict[str, Any]:
    """Return references to the errors of an operation by status, which are added to `responses`."""
    common = EVERY_ROUTE + (EVERY_GET if operation.method == "GET" else EVERY_POST)
    found: dict[str, Any] = {}
    for status in sorted({CODES[code][0] for code in common + operation.route.codes} - {200}):
        codes = [code for code in CODES if code in common + operation.route.codes and CODES[code][0] == status]
        is_common = all(code in common for code in codes)
        name = f"{operation.method.capitalize() if is_common else operation.route.id}{status}"
        responses[name] = error_response(status, codes)
        found[str(status)] = {"$ref": f"#/components/responses/{name}"}
    return found


def error_response(status: int, codes: Sequence[str]) -> dict[str, Any]:
    """Return the document's part on the errors of one status."""
    response: dict[str, Any] = {
        "description": "\n".join(
            [f"{HTTPStatus(status).phrase}:", *(f"* `{code}`: {CODES[code][1]}" for code in codes)]
        ),
        "content": {JSON: {"schema": ref("Error")}},
        "x-error-codes": list(codes),
    }
    if status in HEADERS:
        name, text, schema = HEADERS[status]
        response["headers"] = {name: {"description": text, "required": True, "schema": schema}}
    return response


def groups(made: dict[str, Any]) -> list[tuple[str, list[tuple[str, str, dict[str, Any]]]]]:
    """Return the operations of a document by tag, as method, address and description, each verb once."""
    found: dict[str, list[tuple[str, str, dict[str, Any]]]] = {tag: [] for tag in TAGS}
    for path, item in made["paths"].items():
        for method, operation in item.items():
            if "{name}" not in path:
                found[operation["tags"][0]].append((method.upper(), path, operation))
    return list(found.items())


def openapi() -> Answer:
    """Every route of the API as OpenAPI 3.1: this document."""
    request = current_request()
    refuse_idempotency_key(request)
    query_arguments(request, ())
    return document(request.settings, current_app)
