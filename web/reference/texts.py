"""What the OpenAPI document says of each route beside its row in `VERBS`: texts, answers, codes and an example.

Tests hold it to the code, to docs/api.md and to what a server really answers.
"""

from dataclasses import dataclass, field
from typing import Any

from broker.models import QueueCounts

Schema = dict[str, Any]

# code -> status, and when it comes. docs/api.md has the same table.
CODES = {
    "empty": (200, "the queue is empty"),
    "paused": (200, "the queue is paused, so nothing was taken"),
    "no_result": (200, "the job has no result yet, or it was not kept so long"),
    "bad_request": (400, "the request is not valid HTTP"),
    "bad_name": (400, "the queue name has other characters or is too long"),
    "bad_parameter": (400, "a parameter is missing, out of range or of the wrong type; `parameter` names it"),
    "unknown_parameter": (400, "the verb has no such parameter; `parameter` names it"),
    "duplicate_key": (
        400,
        "a parameter, a form field or a field of the JSON body is given twice; "
        "the content of a message is kept as it is",
    ),
    "bad_json": (400, "the body is not valid JSON, or not a JSON object"),
    "bad_form": (400, "the form has more than 1000 fields, or an empty one"),
    "unexpected_body": (400, "a `GET` has a body with a Content-Type"),
    "bad_utf8": (400, "text is not valid UTF-8, or holds a lone surrogate"),
    "bad_base64": (400, "the base64 of a message is not valid"),
    "bad_message": (400, "there is no message, or both `message` and `messages`"),
    "empty_message": (400, "a message is `null` or empty"),
    "too_deep": (400, "JSON is nested deeper than 32 levels"),
    "incomplete_body": (400, "the body ended early, or its chunks are malformed"),
    "bad_idempotency_key": (
        400,
        "the key is not 1 to 255 visible ASCII characters, or the request keeps none "
        "(only `push` without a stream and `pop` do)",
    ),
    "same_queue": (400, "a queue is moved to itself"),
    "untrusted_host": (400, "the Host header is none of localhost, an IP address and `TRUSTED_HOSTS`"),
    "token_required": (401, "the token is missing or wrong"),
    "cross_site": (403, "a page of another web site made the request"),
    "read_only": (403, "the token or session can only read (`READ_TOKEN`), and the request would change something"),
    "body_timeout": (408, "the body did not come in time: 30 seconds, more for a large one"),
    "not_found": (404, "there is no such address"),
    "method_not_allowed": (405, "the verb needs another method, which `Allow` names"),
    "stale": (409, "the lease ended, the message moved, or the undo was used; `stale` lists ids that are not held"),
    "conflict": (409, "the Idempotency-Key was used with another request"),
    "wrong_type": (409, "the key in Redis is not a list"),
    "cross_slot": (409, "the two queues are in different Cluster slots"),
    "body_too_large": (
        413,
        "the body is larger than `MAX_BODY_BYTES`, or than the verb can need; `limit` says how large it may be",
    ),
    "message_too_large": (413, "a message is larger than `MAX_MESSAGE_BYTES`; `limit` says how large it may be"),
    "too_many_messages": (413, "more than 100,000 messages in one list"),
    "too_many_values": (413, "more than 600,000 values in a list of messages"),
    "uri_too_long": (414, "the address is longer than 8,190 bytes"),
    "unsupported_type": (415, "the Content-Type or charset is not read here"),
    "unsupported_encoding": (415, "the body is compressed or has another Transfer-Encoding"),
    "expectation_failed": (417, "there is an `Expect` header other than `100-continue`"),
    "too_many_attempts": (429, "ten answers to wrong tokens from your address are being delayed"),
    "too_many_blocked_clients": (429, "more than `MAX_BLOCKED_CLIENTS` clients wait in this process"),
    "request_header_fields_too_large": (431, "a header is larger than 8,190 bytes, or there are more than 100"),
    "internal": (500, "a fault of this app"),
    "busy": (503, "all connections to Redis were in use for 5 seconds"),
    "too_many_bodies": (503, "this process is reading four times `MAX_BODY_BYTES` at once"),
    "redis_unavailable": (503, "Redis cannot be reached; nothing was changed"),
    "redis_loading": (503, "Redis is loading its data after a start"),
    "redis_readonly": (503, "this Redis is, or has just become, a replica, or has too few replicas"),
    "redis_busy": (503, "Redis runs a long script, has too many clients, or moves the keys in its cluster"),
    "redis_misconfigured": (
        503,
        "a password is missing or wrong, a command is not permitted, `REDIS_URL` has the wrong form for its server, "
        "or Redis cannot save to disk",
    ),
    "disk_full": (503, "the disk on which Redis keeps the messages is full; nothing was changed"),
    "redis_too_old": (503, "Redis is older than 6.2"),
    "redis_error": (503, "Redis refused for another reason, which `message` has"),
    "outcome_unknown": (503, "the reply of Redis was lost: it is unknown whether this was done"),
    "redis_full": (507, "Redis has no memory left; nothing was stored"),
}

# Codes that any route can answer; and any POST, any GET.
EVERY_ROUTE = (
    *("untrusted_host", "token_required", "cross_site", "method_not_allowed", "not_found", "bad_name"),
    *("unknown_parameter", "bad_parameter", "duplicate_key", "bad_utf8", "bad_request", "bad_idempotency_key"),
    *(
        "incomplete_body",
        "body_timeout",
        "unsupported_encoding",
        "uri_too_long",
        "expectation_failed",
        "request_header_fields_too_large",
        "too_many_attempts",
        "internal",
        "redis_unavailable",
    ),
    *("redis_loading", "redis_readonly", "redis_busy", "redis_misconfigured", "disk_full", "redis_too_old"),
    *("redis_error", "wrong_type", "busy"),
)
EVERY_POST = (
    *("bad_json", "bad_form", "too_many_bodies", "body_too_large", "too_deep", "too_many_values"),
    *("unsupported_type", "outcome_unknown", "read_only"),
)
EVERY_GET = ("unexpected_body",)


# --- parameters: by name, or "verb.name" where a verb means something of its own

PARAMETER_DOCS = {
    "push.message": "The message: any JSON value but null, or the text of a form field.",
    "messages": "Many messages, instead of `message`: all are stored, or none.",
    "events.next": "How many of the first messages to show.",
    "history": "Also tell the last half hour.",
    "push.front": "Put it first: it is popped next. In the query it lifts the limits, to put back what was popped.",
    "push.delay": "It joins the back of the queue then.",
    "each": "With a `text/plain` body: push one message per line.",
    "wait": "How long to wait; the answer comes after 55 seconds at the latest, as proxies cut off at 60.",
    "max": "Take up to so many; a batch ends once it reaches 16 MiB.",
    "offset": "Skip so many.",
    "limit": "List up to so many.",
    "preview": "List `preview` and `bytes` of each message: its first characters and its size.",
    "all.contains": "List only messages that hold this text; ASCII letters match in either case.",
    "details": "Tell how often each was delivered, and why it failed last.",
    "lease": "How long it is yours, from now.",
    "id": "A reservation.",
    "ids": "Reservations, instead of `id`: all, or none.",
    "job": "The name of the job, which its producer has chosen.",
    "ack.job": "With one `id`: keep the result of this job for a day.",
    "result": "The result: any JSON value but null, or the text of a form field.",
    "release.delay": "They come back then: a retry with back-off.",
    "dead": "Make them dead letters now.",
    "reason": "Why they failed; `all?details=1` tells it.",
    "position": "0 is the message to be popped next.",
    "remove.message": "The message that should be there.",
    "remove.undo": "Keep it for one hour, so that `restore` can put it back.",
    "undo": "What `clear` or `remove` answered.",
    "to": "The other queue.",
    "move.max": "Move up to so many; by default those that wait now.",
    "move.contains": "Move only messages that hold this text; ASCII letters match in either case.",
    "move.position": "Move only the message at this position (0 is popped next); without `max` or `contains`.",
    "move.message": "With `position`: the message that should be there.",
    "keep": "How long to keep the result.",
    "match": "A pattern with `*`, `?` and `[abc]`.",
}


# --- answers

TEXT: Schema = {"type": "string"}
WHOLE: Schema = {"type": "integer", "minimum": 0}
SWITCH: Schema = {"type": "boolean"}
UNIX_TIME: Schema = {"type": "number", "description": "Unix time by the clock of Redis, in seconds."}


def ref(name: str) -> Schema:
    """Return a reference to a schema of the document."""
    return {"$ref": f"#/components/schemas/{name}"}


def fields(properties: dict[str, Schema], **optional: Schema) -> Schema:
    """Return the schema of an object that has all `properties`, and perhaps the optional ones."""
    return {"type": "object", "properties": properties | optional, "required": list(properties)}


def success(properties: dict[str, Schema], **optional: Schema) -> Schema:
    """Return the schema of an answer that succeeded."""
    return fields({"success": {"const": True}, **properties}, **optional)


def bytes_schema(about: str, **more: Any) -> Schema:
    """Return the schema of bytes in JSON."""
    pattern = "^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$"
    found = fields({"base64": {"type": "string", "pattern": pattern, **more}})
    return {**found, "additionalProperties": False, "description": about}


def list_of(item: Schema) -> Schema:
    return {"type": "array", "items": item}


COUNTS = {name: WHOLE if type(value) is int else SWITCH for name, value in QueueCounts().as_dict().items()}
FAILURE: dict[str, Schema] = {"reason": TEXT, "failed": UNIX_TIME}  # of a message that failed and came back
PREVIEW: dict[str, Schema] = {"preview": ref("Message"), "bytes": WHOLE}
DELIVERY = {"id": TEXT, "message": ref("Message"), "deliveries": WHOLE, "deadline": UNIX_TIME}

SCHEMAS: dict[str, Schema] = {
    "Bytes": bytes_schema("Bytes that are not valid UTF-8."),
    "Message": {"anyOf": [TEXT, ref("Bytes")], "description": "A message, byte for byte as it was pushed."},
    "NewBytes": bytes_schema("Bytes to push, of any kind.", minLength=4),
    "NewMessage": {
        "anyOf": [
            {"type": "string", "minLength": 1},
            ref("NewBytes"),
            {"type": ["number", "boolean"]},
            {"type": "array", "items": {}},
            {
                "type": "object",
                "title": "JsonObject",
                "not": {"required": ["base64"], "properties": {"base64": TEXT}, "maxProperties": 1},
            },
        ],
        "description": "A string is the message itself; any other value but null is stored as its JSON text without "
        'white space between tokens; `{"base64": "..."}` is raw bytes.',
    },
    "Nothing": {
        **fields(
            {"success": {"const": False}, "error": {"enum": ["empty", "paused", "no_result"]}, "message": TEXT},
            messages={"type": "array", "items": {}, "maxItems": 0},
        ),
        "description": "Nothing was taken: not an error. With `max` it has `messages`, an empty list.",
    },
    "Error": {
        **fields(
            {"success": {"const": False}, "error": {"enum": list(CODES)}, "message": TEXT},
            parameter={"type": "string", "description": "The parameter that is at fault."},
            limit={"type": "integer", "description": "What may be sent at most."},
            stale={**list_of(TEXT), "description": "The ids that are not held."},
            pushed={"type": "integer", "description": "Messages that a stream has stored until then."},
            line={"type": "integer", "description": "The line of a stream that could not be taken, from 1."},
            moved={"type": "integer", "description": "Messages that were moved until then."},
        ),
        "description": "`error` is a code for programs and `message` a sentence for people. Nothing was stored and "
        "nothing taken, except as `pushed` and `moved` say; with the code `outcome_unknown` that is not known.",
    },
    "Pushed": success({"message": ref("Message"), "count": WHOLE}, id=TEXT),
    "PushedMany": success({"pushed": WHOLE, "count": WHOLE}, ids=list_of(TEXT)),
    "Popped": success({"message": ref("Message")}),
    "PoppedMany": success({"messages": list_of(ref("Message"))}),
    "Counts": success({"message": {"type": "string", "pattern": "^[0-9]+$"}, **COUNTS}),
    "ListedMessage": {
        **fields({}, position=WHOLE, message=ref("Message"), **PREVIEW, deliveries=WHOLE, **FAILURE, died=UNIX_TIME),
        "description": "`message`, or `preview` and `bytes`; `position` with `contains`; the rest with `details`.",
    },
    "Messages": success({"messages": list_of({"anyOf": [ref("Message"), ref("ListedMessage")]}), "count": WHOLE}),
    "Reserved": success(DELIVERY),
    "ReservedMany": success({"messages": list_of(fields(DELIVERY))}),
    "HeldMessages": success(
        {
            "messages": list_of(
                fields(
                    {"id": TEXT, "deliveries": WHOLE, "deadline": UNIX_TIME},
                    message=ref("Message"),
                    **PREVIEW,
                    **FAILURE,
                )
            ),
            "count": WHOLE,
        }
    ),
    "Acked": success({"acked": WHOLE}),
    "Released": success({"released": WHOLE, "dead": WHOLE}),
    "Extended": success({"deadline": UNIX_TIME}),
    "Removed": success({"message": ref("Message")}, undo=TEXT),
    "Cleared": success({"cleared": WHOLE, "undo": {"type": ["string", "null"]}}),
    "Restored": success({"restored": WHOLE}),
    "Moved": success({"moved": WHOLE}),
    "Paused": success({"paused": SWITCH}),
    "ResultStored": success({"job": TEXT}),
    "Result": success({"job": TEXT, "result": ref("Message"), "at": UNIX_TIME}),
    "Queues": success({"queues": list_of(fields({"name": TEXT, **COUNTS})), "complete": SWITCH, "unnamed": WHOLE}),
    "Health": success({"version": TEXT}, warning=TEXT),
    "OpenAPI": {"type": "object", "description": "This document."},
}


# --- routes


@dataclass(frozen=True)
class Example:
    """A request and what it answered once, in a queue that holds what the answer shows."""

    answer: dict[str, Any]
    query: dict[str, Any] = field(default_factory=dict)
    body: dict[str, Any] | None = None


@dataclass(frozen=True)
class Route:
    """What a route is called, answers and shows."""

    id: str  # the operationId: what a generated client calls it
    tag: str
    answers: tuple[str, ...] = ()  # schemas of a 200 as JSON
    media: tuple[str, ...] = ()  # other media types that it can answer
    codes: tuple[str, ...] = ()  # of its own, beside those of every route
    example: Example | None = None
    about: str = ""  # where the view's docstring does not say it


PUSH_POP, LOOKING, RESERVATIONS, TIDYING = "Push and pop", "Looking", "Reservations", "Tidying up"
RESULTS, SERVICE = "Results", "All queues, health and metrics"
TAGS = (PUSH_POP, LOOKING, RESERVATIONS, TIDYING, RESULTS, SERVICE)

NDJSON, PLAIN, BYTES, EVENTS = "application/x-ndjson", "text/plain", "application/octet-stream", "text/event-stream"
MESSAGE_CODES = ("empty_message", "bad_base64", "message_too_large")
WAITING_CODES = ("too_many_blocked_clients",)
ID = "1795489534022053-0001-c6c635c30e138159-1"
HELD = {"id": ID, "message": "hello", "deliveries": 1, "deadline": 1795489594.022}
NO_OTHERS = {name: value for name, value in QueueCounts().as_dict().items() if name != "count"}


def ok(**answer: Any) -> dict[str, Any]:
    return {"success": True, **answer}


ROUTES = {  # by method and verb, or by method and path
    "POST push": Route(
        "push",
        PUSH_POP,
        ("Pushed", "PushedMany"),
        codes=(*MESSAGE_CODES, "bad_message", "too_many_messages", "bad_idempotency_key", "conflict", "redis_full"),
        example=Example(ok(message="hello", count=1), body={"message": "hello"}),
    ),
    "POST pop": Route(
        "pop",
        PUSH_POP,
        ("Popped", "PoppedMany", "Nothing"),
        (PLAIN, BYTES),
        ("empty", "paused", "bad_idempotency_key", "conflict", *WAITING_CODES),
        Example(ok(message="hello"), {"wait": 5}),
    ),
    "GET count": Route("count", LOOKING, ("Counts",), example=Example(ok(message="1", count=1, **NO_OTHERS))),
    "GET all": Route(
        "all",
        LOOKING,
        ("Messages",),
        (NDJSON,),
        example=Example(ok(messages=["hello"], count=1), {"limit": 10}),
    ),
    "GET events": Route("events", LOOKING, media=(EVENTS,), codes=WAITING_CODES),
    "POST reserve": Route(
        "reserve",
        RESERVATIONS,
        ("Reserved", "ReservedMany", "Nothing"),
        codes=("empty", "paused", *WAITING_CODES),
        example=Example(ok(**HELD), {"lease": 60}),
    ),
    "GET reserved": Route(
        "reserved",
        LOOKING,
        ("HeldMessages",),
        (NDJSON,),
        example=Example(ok(messages=[HELD], count=1)),
        about="The messages that are reserved, the soonest to come back first.",
    ),
    "GET delayed": Route(
        "delayed",
        LOOKING,
        ("HeldMessages",),
        (NDJSON,),
        example=Example(ok(messages=[{**HELD, "reason": "timed out", "failed": 1795489534.5}], count=1), {"limit": 10}),
        about="The messages that are delayed, the soonest to come back first. Each is one reserved by nobody: with its "
        "`id` it can be released (it comes now), extended (later), acked (never) or buried.",
    ),
    "POST ack": Route(
        "ack",
        RESERVATIONS,
        ("Acked",),
        codes=("stale", *MESSAGE_CODES, "redis_full"),
        example=Example(ok(acked=1), body={"id": ID}),
    ),
    "POST release": Route(
        "release",
        RESERVATIONS,
        ("Released",),
        codes=("stale",),
        example=Example(ok(released=1, dead=0), body={"id": ID, "delay": 60, "reason": "timed out"}),
    ),
    "POST extend": Route(
        "extend",
        RESERVATIONS,
        ("Extended",),
        codes=("stale",),
        example=Example(ok(deadline=1795489594.022), body={"id": ID, "lease": 60}),
    ),
    "POST remove": Route(
        "remove",
        TIDYING,
        ("Removed",),
        codes=("stale", *MESSAGE_CODES),
        example=Example(ok(message="hello"), body={"position": 0, "message": "hello"}),
    ),
    "POST clear": Route("clear", TIDYING, ("Cleared",), example=Example(ok(cleared=1, undo="bc5d3c2e8a97e73a"))),
    "POST restore": Route(
        "restore",
        TIDYING,
        ("Restored",),
        codes=("stale", "redis_full"),
        example=Example(ok(restored=1), body={"undo": "bc5d3c2e8a97e73a"}),
    ),
    "POST move": Route(
        "move",
        TIDYING,
        ("Moved",),
        codes=("same_queue", "stale", "cross_slot", "redis_full", *MESSAGE_CODES),
        example=Example(ok(moved=1), body={"to": "jobs"}),
    ),
    "POST pause": Route("pause", TIDYING, ("Paused",), example=Example(ok(paused=True))),
    "POST resume": Route("resume", TIDYING, ("Paused",), example=Example(ok(paused=False))),
    "POST result": Route(
        "store_result",
        RESULTS,
        ("ResultStored",),
        codes=(*MESSAGE_CODES, "redis_full"),
        example=Example(ok(job="sum-1"), body={"job": "sum-1", "result": 42}),
    ),
    "GET result": Route(
        "get_result",
        RESULTS,
        ("Result", "Nothing"),
        codes=("no_result", *WAITING_CODES),
        example=Example(ok(job="sum-1", result="42", at=1795489534.5), {"job": "sum-1", "wait": 5}),
    ),
    "GET /api/queues": Route(
        "queues",
        SERVICE,
        ("Queues",),
        example=Example(
            ok(queues=[{"name": "jobs", "count": 1, **NO_OTHERS}], complete=True, unnamed=0), {"match": "job*"}
        ),
    ),
    "GET /api/events": Route("queues_events", SERVICE, media=(EVENTS,), codes=WAITING_CODES),
    "GET /healthz": Route("healthz", SERVICE, ("Health",), example=Example(ok(version="1.0.0"))),
    "GET /metrics": Route("metrics", SERVICE, media=(PLAIN, "application/openmetrics-text")),
    "GET /api/openapi.json": Route("openapi", SERVICE, ("OpenAPI",)),
}
