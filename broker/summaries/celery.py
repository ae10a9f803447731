"""Tasks of Celery 4 and 5, and of protocol 1. A pickle or msgpack is never loaded: Celery sends a text beside it."""

import base64
import json

from broker.summaries.parts import MAX_PARSED, Object, Summary, call, member, summary, time_of

KEYS = frozenset({"body", "content-type", "properties"})
_SERIALIZERS = {
    "application/json": "json",
    "application/x-python-serialize": "pickle",
    "application/x-msgpack": "msgpack",
}


def summarize(message: Object) -> Summary | None:
    """Return the summary of a task; its id alone if all of it is in a pickle."""
    kind, headers, properties = message["content-type"], message.get("headers"), message["properties"]
    if not isinstance(kind, str):
        return None
    is_json, serializer = kind == "application/json", _SERIALIZERS.get(kind, kind)
    compression = member(headers, "compression")
    body = None
    if is_json and not compression:
        body = _body(message["body"], member(properties, "body_encoding"))
    task = body if isinstance(body, dict) else headers  # protocol 1 has everything in the body
    name = member(task, "task")
    if isinstance(name, str):
        text = _call(name, task, body)
    elif not is_json and isinstance(member(properties, "delivery_tag"), str):
        text = f"({serializer})"
    else:
        return None
    return summary(
        "celery",
        text,
        id=member(task, "id") or member(properties, "correlation_id"),
        tries=member(task, "retries") or None,
        due=time_of(member(task, "eta")),
        expires=time_of(member(task, "expires")),
        queue=member(member(properties, "delivery_info"), "routing_key"),
        priority=member(properties, "priority") or None,
        group=member(task, "group"),
        parent=member(task, "parent_id"),
        origin=member(task, "origin"),
        serializer=None if is_json else serializer,
        compression=compression,
    )


def _call(name: str, task: object, body: object) -> str:
    """Return a task as a call, with its arguments, or with those that Celery wrote as text beside a pickle."""
    if task is body:
        return call(name, member(task, "args"), member(task, "kwargs"))
    if isinstance(body, list) and len(body) == 3:
        return call(name, body[0], body[1])
    args, kwargs = member(task, "argsrepr"), member(task, "kwargsrepr")
    if not (isinstance(args, str) and isinstance(kwargs, str)):
        return call(name, None)
    shown = [args[1:-1].removesuffix(","), "" if kwargs == "{}" else f"**{kwargs}"]
    return f"{name}({', '.join(filter(None, shown))})"


def _body(body: object, encoding: object) -> object:
    """Return the value of a JSON body; None if it is large."""
    if not isinstance(body, str) or len(body) > MAX_PARSED:
        return None
    return json.loads(base64.b64decode(body) if encoding == "base64" else body)
