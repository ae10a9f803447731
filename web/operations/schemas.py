"""JSON Schemas for the API: the types of fields, and what several operations share."""

from dataclasses import dataclass
from typing import Any

from web.errors import ERRORS

Schema = dict[str, Any]


def ref(name: str, about: str = "") -> Schema:
    """Return a reference to a schema of the document."""
    return {"$ref": f"#/components/schemas/{name}"} | ({"description": about} if about else {})


def message(about: str = "The message.") -> Schema:
    return ref("Message", about)


def text(about: str, **more: Any) -> Schema:
    return {"type": "string", **more, "description": about}


def whole(about: str) -> Schema:
    return {"type": "integer", "minimum": 0, "description": about}


def flag(about: str) -> Schema:
    return {"type": "boolean", "description": about}


def unix_time(about: str) -> Schema:
    return {"type": "number", "description": f"{about} Unix time, in seconds."}


def list_of(item: Schema, about: str, **more: Any) -> Schema:
    return {"type": "array", "items": item, **more, "description": about}


def fields(required: dict[str, Schema], **optional: Schema) -> Schema:
    """Return the schema of an object that has all the `required` fields, and may have the optional ones."""
    return {"type": "object", "properties": required | optional, "required": list(required)}


@dataclass(frozen=True)
class JsonAnswer:
    """A JSON answer with status 200: its schema, the name of that in generated clients, and when it is sent."""

    name: str
    schema: Schema
    when: str = ""  # "": where no other answer applies


def success(name: str, required: dict[str, Schema], when: str = "", **optional: Schema) -> JsonAnswer:
    """Return an answer whose `success` is true."""
    return JsonAnswer(name, fields({"success": {"const": True}, **required}, **optional), when)


def _bytes(about: str, **more: Any) -> Schema:
    pattern = "^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$"
    found = fields({"base64": {"type": "string", "pattern": pattern, **more}})
    return {**found, "additionalProperties": False, "description": about}


NOTHING = JsonAnswer(
    "Nothing",
    {
        **fields(
            {
                "success": {"const": False},
                "error": {"enum": [code for code, row in ERRORS.items() if row.status == 200]},
                "message": {"type": "string"},
            },
            messages={"type": "array", "items": {}, "maxItems": 0},
            retry_after={"type": "number", "description": "With `limited`: seconds after which to try again."},
        ),
        "description": "There is nothing to return, which is not an error. With `max`, `messages` is an empty list.",
    },
)

COUNTS = {
    "count": whole("Messages waiting."),
    "reserved": whole("Messages reserved."),
    "delayed": whole("Messages delayed."),
    "dead": whole("Dead letters."),
    "waiters": whole("Clients blocked in `pop` or `reserve`."),
    "paused": flag("Whether the queue is paused."),
}
AGE = {
    "anyOf": [ref("Age"), {"type": "null"}],
    "description": "How long the next message has waited: `seconds`, and `at_least` if it may have waited longer. Null "
    "if nothing is known, or if no message waits.",
}
ATTACHED = fields(
    {
        "key": text("The key of the list in Redis."),
        "taken_from": {"enum": ["left", "right"], "description": "The end from which its program takes."},
        "why": {
            "enum": ["LISTS", "*", "sidekiq"],
            "description": "Why it is not a queue of this app: `LISTS` names it, `LISTS=*` found it, or Sidekiq names "
            "it as its own.",
        },
        "may": list_of({"type": "string"}, "The operations that may change it: none without `LISTS_WRITABLE`."),
    }
) | {"description": "Only of a list of another program, which can be neither popped nor reserved here."}
BESIDE = {
    "type": "object",
    "additionalProperties": {"type": "integer", "minimum": 0},
    "description": "Only of a list of another program: the number of messages that it keeps elsewhere, by its own "
    "name, such as `unacked`.",
}
SUMMARY = fields(
    {
        "shape": text("The program that wrote it, such as `celery`."),
        "text": text("What it is, in one line, such as `t.charge(4, amount=6.0)`."),
        "facts": {
            "type": "object",
            "additionalProperties": {"type": ["string", "number", "boolean"]},
            "description": "What else is known, by name: `id`, `tries` (earlier ones), `queue`, `error` and others. "
            "Times are Unix seconds: `due`, `expires`, `created`, `enqueued`, `failed`, `time`. A time without a time "
            "zone is text.",
        },
    }
) | {
    "description": "Only of a message in a list of another program, with `preview`, `contains` or `details`, if its "
    "shape is known."
}
PREVIEW_FIELDS = {
    "preview": message("With `preview`: the first characters, instead of `message`."),
    "bytes": whole("With `preview`: the size of the whole message."),
}
HISTORY_FIELDS = {
    "reason": text("Why it last failed."),
    "failed": unix_time("When it last failed; absent if it became a dead letter at that failure."),
    "died": unix_time("When it became a dead letter, even if it was moved back."),
}
TAKEN_FROM = text("The queue that it was taken from, if the path names several.")
DELIVERY = {
    "id": text("Id of the reservation, for `ack`, `release` and `extend`."),
    "message": message(),
    "deliveries": whole("Number of deliveries so far, this one included."),
    "max_deliveries": whole("After that many deliveries, a message that is not acked becomes a dead letter."),
    "deadline": unix_time("When the lease ends."),
}

# Schemas that are not the answer of an operation themselves, but that others refer to.
SHARED: dict[str, Schema] = {
    "Bytes": _bytes("Bytes that are not valid UTF-8."),
    "Message": {
        "anyOf": [{"type": "string"}, ref("Bytes")],
        "description": "A message, byte for byte as it was pushed.",
    },
    "NewBytes": _bytes("Bytes to push, of any kind.", minLength=4),
    "NewMessage": {
        "anyOf": [
            {"type": "string", "minLength": 1},
            ref("NewBytes"),
            {"type": ["number", "boolean"]},
            {"type": "array", "items": {}},
            {
                "type": "object",
                "title": "JsonObject",
                "not": {"required": ["base64"], "properties": {"base64": {"type": "string"}}, "maxProperties": 1},
            },
        ],
        "description": "A string is the message itself. Any other value is stored as its JSON text, without white "
        'space between tokens. `{"base64": "..."}` is raw bytes. null and "" are refused.',
    },
    "Age": fields(
        {
            "seconds": whole("How long the message has waited; up to about 10 seconds too low."),
            "at_least": flag("Whether it may have waited longer."),
        }
    ),
    "ListedMessage": {
        **fields(
            {},
            position=whole("With `contains` or `reason`: its position; 0 is popped next."),
            message=message(),
            **PREVIEW_FIELDS,
            summary=SUMMARY,
            deliveries=whole("With `details`: number of deliveries so far, also those before it became a dead letter."),
            **HISTORY_FIELDS,
        ),
        "description": "A message, or its preview, with the details that were requested.",
    },
    "HeldMessage": fields(
        {
            "id": text("Its id, for `release`, `extend` and `ack`."),
            "deliveries": whole("Number of deliveries since it joined the queue, as in its reservation."),
            "deadline": unix_time("When it returns to the queue."),
        },
        message=message(),
        **PREVIEW_FIELDS,
        by=text("Who reserved it last, if it sent `by`."),
        **HISTORY_FIELDS,
    ),
    "FailureReason": fields(
        {
            "reason": text("The reason, with `#` for each number and `<id>` for each id."),
            "count": whole("Number of messages."),
            "first": unix_time("When the first of them failed, as far as it is known."),
            "last": unix_time("When the last of them failed."),
            "example": text("The latest of these reasons, as it was given."),
        }
    ),
    "Error": {
        **fields(
            {
                "success": {"const": False},
                "error": text("A code for programs.", enum=list(ERRORS)),
                "message": text("A sentence for people."),
            },
            parameter=text("The parameter at fault."),
            limit={"type": "integer", "description": "The limit that was exceeded."},
            stale=list_of({"type": "string"}, "The ids that are not held."),
            pushed=whole("Messages of a stream that were stored before the error."),
            imported=whole("Messages of an import that were stored before the error."),
            line=whole("The line of a stream at fault, from 1."),
            moved=whole("Messages that were moved before the error."),
            removed=whole("Messages that were removed before the error."),
            restored=whole("Messages that were put back before the error."),
            undo=text("With `moved` or `removed`: the token for `restore`."),
        ),
        "description": "Nothing was changed, except for the messages that `pushed`, `imported`, `moved`, `removed` or "
        "`restored` counts. After the code `outcome_unknown` it is not known whether anything was changed.",
    },
}
