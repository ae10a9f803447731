"""What `schemathesis run` loads (SCHEMATHESIS_HOOKS) to test the app; tests/web/reference/test_conformance.py runs it.

Some rules stand in words only, as no schema can express them: a parameter goes in the query or in the body, some
exclude each other, one of `id` and `ids` is required. Requests are changed to follow them, so that a request that is
meant to be valid is valid, and any other is refused for its intended fault.
"""

import contextlib
import itertools
import json
from collections.abc import Sequence
from ipaddress import ip_address
from typing import Any
from urllib.parse import unquote

import schemathesis
from schemathesis.core import NOT_SET
from schemathesis.core.parameters import ParameterLocation

from web.api import OPERATIONS
from web.errors import ApiError
from web.input.body import FORM, JSON, TEXT, RawJson
from web.input.object_list import ObjectList
from web.input.parameters import MessageParameter, Parameter
from web.input.raw_json import NDJSON
from web.operations.operation import Operation
from web.reference.openapi import CLOUD_EVENT

ROWS = {(one.method, one.name): one for one in OPERATIONS if not one.path}
REQUIRED = {"id": "a", "undo": "a", "to": "elsewhere", "job": "a", "position": 0}
addresses = itertools.count(int(ip_address("10.0.0.1")))
# Of each pair only the second is kept.
EXCLUSIVE = (
    *(("ids", "id"), ("front", "delay"), ("unstarted", "dead"), ("unstarted", "delay"), ("dead", "delay")),
    *(("max", "position"), ("contains", "position"), ("reason", "position")),
)


@schemathesis.serializer(NDJSON)
def serialize_lines(context: Any, value: Any) -> Any:
    """Send each line of a text as a JSON string, or as a message to import; any other value as an invalid line."""
    if not isinstance(value, str):
        return b"{\n"
    is_import = context.case.path.endswith("/import")
    lines = ({"message": line} if is_import else line for line in value.splitlines() if line)
    return b"".join(json.dumps(line).encode() + b"\n" for line in lines)


@schemathesis.hook
def filter_case(context: Any, case: "schemathesis.Case[Any]") -> bool:
    """Leave out what no schema can express to generators of clients too.

    A CloudEvent that is no object is accepted, and a queue that is named twice is not.
    """
    is_event = case.media_type != CLOUD_EVENT or isinstance(case.body, dict)
    return is_event and len(set(names_of(case))) == len(names_of(case))


def names_of(case: "schemathesis.Case[Any]") -> list[str]:
    """Return the names of queues in the path."""
    return unquote(str(case.path_parameters.get("name", ""))).split(",")


@schemathesis.hook
def before_call(context: Any, case: "schemathesis.Case[Any]", kwargs: Any) -> None:
    """Do not wait, ask from a new IP address (wrong tokens slow an address down), and follow the rules.

    The request is changed in place: a value that is assigned would count as new, and be judged again.
    """
    case.headers["X-Forwarded-For"] = str(ip_address(next(addresses)))
    if len(names_of(case)) > 1:
        case.headers.pop("Idempotency-Key", None)  # several queues take none
    query, fields = case.query, case.body if isinstance(case.body, dict) else {}
    for sent in (query, fields):
        if str(sent.get("wait", "")).replace(".", "").isdigit():
            sent["wait"] = 0
    operation = ROWS.get((case.method.upper(), case.path.rpartition("/")[2]))
    if operation:
        for sent, parameter in itertools.product((query, fields), operation.parameters):
            if parameter.empty and sent.get(parameter.name) == "":
                sent[parameter.name] = int(parameter.empty)
        write_plainly(operation.parameters, fields)
        if operation.name == "settle":
            follow_the_rules_of_settle(fields)
        follow_the_rules(operation, case, query, fields)


def write_plainly(parameters: Sequence[Parameter], fields: dict[str, Any]) -> None:
    """Write a number that is sent as text as the document has it, so that it counts as valid."""
    for parameter in parameters:
        if isinstance(parameter, ObjectList) and isinstance(fields.get(parameter.name), list):
            for item in fields[parameter.name]:
                if isinstance(item, dict):
                    write_plainly(parameter.fields, item)
        elif parameter.name in fields and not isinstance(parameter, MessageParameter):
            with contextlib.suppress(ApiError):
                value = parameter.from_json(RawJson(json.dumps(fields[parameter.name]).encode()))
                if value is None:
                    del fields[parameter.name]
                else:
                    fields[parameter.name] = parameter.parse(value)


def follow_the_rules_of_settle(fields: dict[str, Any]) -> None:
    """Name each id once and up to 1,000 in all, send a job with its result, and release in one way only."""
    seen: list[Any] = []
    for name in [name for name, items in fields.items() if items is None]:
        del fields[name]
    if all(items == [] for items in fields.values()):
        fields["acks"] = [REQUIRED["id"]]
    for name, items in fields.items():
        for item in list(items) if isinstance(items, list) else ():
            id = item.get("id") if isinstance(item, dict) else item
            if id in seen or len(seen) >= 1000:
                items.remove(item)
                continue
            seen.append(id)
            if isinstance(item, dict):
                ways = [way for way in ("delay", "dead", "unstarted") if item.get(way)]
                for way in ways[1:]:
                    del item[way]
            if isinstance(item, dict) and name == "acks" and ("job" in item) != ("result" in item):
                item.update({"job": "a", "result": "a"} | item)


def follow_the_rules(
    operation: Operation, case: "schemathesis.Case[Any]", query: dict[str, Any], fields: dict[str, Any]
) -> None:
    """Change a request to follow the rules that no schema expresses."""

    def drop(*names: str) -> None:
        for name in names:
            query.pop(name, None)
            fields.pop(name, None)

    is_query_wrong = case.meta is not None and case.meta.is_negative_at(ParameterLocation.QUERY)
    for name in fields.keys() & query.keys():
        del (fields if is_query_wrong else query)[name]
    if case.media_type != TEXT:
        query.pop("each", None)
    if operation.name != "push" or case.media_type != JSON:
        drop("raw")
    if case.media_type == NDJSON or "each" in query:
        drop("front", "delay")
        case.headers.pop("Idempotency-Key", None)
    if operation.name == "move" and not {"position", "message"} <= query.keys() | fields.keys():
        drop("position", "message")
    if operation.name == "remove":
        sent_names = query.keys() | fields.keys()
        is_raw = case.media_type not in (None, JSON, FORM) and case.body is not NOT_SET
        if "messages" in sent_names:
            drop("position", "message", "contains", "reason")
        elif is_raw:
            query.setdefault("position", REQUIRED["position"])
        elif not {"position", "message"} <= sent_names:
            drop("position", "message")
            if "contains" not in sent_names:
                query["contains"] = "a"
    for name, other in EXCLUSIVE:
        if other in query or other in fields:
            drop(name)
    if operation.name == "ack" and not {"id", "job", "result"} <= query.keys() | fields.keys():
        drop("job", "result")
    if operation.name == "release" and "id" not in query and "id" not in fields:
        drop("job")
    needed = {one.name for one in operation.parameters if one.required and one.in_query}
    if operation.name in ("ack", "release", "extend") and "ids" not in query and "ids" not in fields:
        needed.add("id")
    query.update({name: REQUIRED[name] for name in needed - query.keys() - fields.keys()})
    for sent in (query, fields):
        if operation.name == "move" and sent.get("to") == case.path_parameters.get("name", "default"):
            sent["to"] = REQUIRED["to"]


@schemathesis.check
def error_code_conformance(context: Any, response: Any, case: "schemathesis.Case[Any]") -> None:
    """The code of an error is one that the document lists for this operation and status."""
    responses = case.operation.definition.raw["responses"]
    documented = responses.get(str(response.status_code), {})
    if name := documented.get("$ref", "").rpartition("/")[2]:
        documented = case.operation.schema.raw_schema["components"]["responses"][name]
    if codes := documented.get("x-error-codes"):
        code = json.loads(response.content)["error"]
        assert code in codes, f"{code} is not documented for {response.status_code}"
