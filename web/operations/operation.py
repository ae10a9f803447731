"""An operation of the API: the row that says what it takes and answers, and the code that runs it for a request.

The row is the single source for the checks of a request, the OpenAPI document, /api/docs and docs/api.md.
"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import redis
from flask import Response

from broker.attached.queue import AttachedQueue
from broker.queue import ReliableQueue
from web.errors import ApiError, from_redis
from web.input.body import Unescaped, lines_kind, media_type, read_fields, refuse_body, release_memory
from web.input.codec import BY_REDIS, Limits
from web.input.parameters import VISIBLE_ASCII, MessageParameter, Parameter, parse, validate_name, validate_names
from web.input.raw_json import NDJSON
from web.metrics.instrumentation import record_change, record_messages
from web.operations.schemas import JsonAnswer
from web.request import Request, current_request

API_PREFIX = "/api/"
QUEUE_PATH = API_PREFIX + "queue/"  # + <operation> for the default queue, + <name>/<operation> for any
MAX_FIELDS_BYTES = 1 << 18  # of a body without messages: a list of 1,000 ids has 50 kB

UNESCAPED = (
    "In {}, + was decoded to a space and %XX to a byte; to keep them, send the text with curl's --data-urlencode."
)

# The operations that only read a list of another program; its `may` has the others.
READING_ATTACHED = {
    "count",
    "all",
    "reserved",
    "delayed",
    "consumers",
    "events",
    "reasons",
    "get_settings",
    "export_queue",
}

Answer = dict[str, object]


@dataclass(frozen=True)
class Counted:
    """An answer whose messages are counted already: at the first use of an Idempotency-Key, or as a stream arrived."""

    answer: Answer | Response


Result = Answer | Response | Counted
View = Callable[..., Result]


@dataclass(frozen=True)
class Example:
    """A request to the default queue and its answer: JSON, or the text of a stream or file."""

    answer: dict[str, Any] | str
    sent: dict[str, Any] = field(default_factory=dict)  # parameters: in the query of a GET, in the body of a POST
    pipe: str = ""  # a shell command that filters the answer


@dataclass(frozen=True, eq=False)
class Operation:
    """One operation. It is also the Flask view of its routes."""

    view: View
    method: str
    group: str  # the section of the reference
    name: str  # the last word of its path
    id: str  # its name in metrics, Flask and generated clients
    parameters: tuple[Parameter, ...]
    path: str = ""  # unless it is an operation on a queue
    several: bool = False  # whether its path can name several queues, separated by commas; its view gets a list
    idempotent: bool = False  # whether it takes an Idempotency-Key, unless its path names several queues
    raw_body: bool = False  # whether the body can be the message itself
    streams: bool = False  # whether the body can be a stream of lines, a message each
    lines: tuple[Parameter, ...] = ()  # the fields of each line, if the body is a stream of objects
    is_new: Callable[[Request], bool] = lambda _: True  # whether its message is new, so that limits apply
    answers: tuple[JsonAnswer, ...] = ()
    media: tuple[str, ...] = ()  # the media types of answers that are not JSON
    errors: tuple[str, ...] = ()  # error codes, beyond those of any request
    example: Example | None = None

    @cached_property
    def paths(self) -> tuple[str, ...]:
        """Its paths, as Flask writes them: for the default queue, and for any queue."""
        if self.path:
            return (self.path,)
        return QUEUE_PATH + self.name, f"{QUEUE_PATH}<any:name>/{self.name}"

    @cached_property
    def about(self) -> list[str]:
        """The paragraphs of its description: the docstring of the view."""
        return [" ".join(part.split()) for part in (inspect.getdoc(self.view) or "").split("\n\n")]

    @cached_property
    def takes_messages(self) -> bool:
        """Whether the body can hold a message, so that it may be large."""
        return any(isinstance(parameter, MessageParameter) for parameter in self.parameters)

    def __call__(self, name: str | None = None) -> Answer | Response:
        """Answer the request that Flask is serving."""
        return call(current_request(), self, name)


def operation(method: str, group: str, *parameters: Parameter, **row: Any) -> Callable[[View], Operation]:
    """Turn the decorated view into an operation, named after it by default. `row` has more fields of Operation."""

    def make(view: View) -> Operation:
        name = row.get("name", view.__name__)
        return Operation(view, method, group, **({"name": name, "id": name, "parameters": parameters} | row))

    return make


def call(request: Request, operation: Operation, name: str | None = None) -> Answer | Response:
    """Check a request and run the view of an operation, on the queue `name` (None: the default queue).

    `name` may be several, separated by commas, if `operation.several`.

    Raises:
        ApiError: the request is not valid.
        redis.RedisError: Redis is unavailable or refuses.
    """
    found = _run_on_queue(request, operation, name) if not operation.path else _run(request, operation)
    return found.answer if isinstance(found, Counted) else found


def _run(request: Request, operation: Operation) -> Result:
    refuse_idempotency_key(request)
    values, warning = arguments(request, operation)
    return warned(operation.view(request, **values), warning)


def _run_on_queue(request: Request, operation: Operation, name: str | None) -> Result:
    text = request.settings.queue_name if name is None else name
    names = validate_names(text) if operation.several and "," in text else [validate_name(text)]
    queues = _find(request, operation, names)
    attached = [queue for queue in queues if isinstance(queue, AttachedQueue)]
    if any(operation.id not in READING_ATTACHED and operation.id not in queue.may for queue in attached):
        raise ApiError("attached_list")
    try:
        takes_key = operation.idempotent and len(queues) == 1
        key = {"key": idempotency_key(request) if takes_key else None} if operation.idempotent else {}
        if not takes_key:
            refuse_idempotency_key(request)
        values, warning = arguments(request, operation)
        found = warned(operation.view(request, queues if operation.several else queues[0], **key, **values), warning)
    finally:
        release_memory(request)
    queue = text if len(queues) == 1 else request.taken_from
    if queue and not isinstance(found, Counted):
        record_messages(request.services, operation.id, queue, found)
    record_change(request, operation.id, queue, found.answer if isinstance(found, Counted) else found)
    return found


def _find(request: Request, operation: Operation, names: list[str]) -> list[ReliableQueue]:
    try:
        return [request.services.queue(name) for name in names]
    except redis.RedisError as error:
        if not is_stream(request, operation):
            raise
        raise from_redis(error).with_details(**{"imported" if operation.lines else "pushed": 0}) from error


def is_stream(request: Request, operation: Operation) -> bool:
    """Return whether the body is a stream of lines; then each error says how many were stored."""
    return bool(operation.lines) or (operation.streams and lines_kind(request) is not None)


def warned(found: Result, warning: str) -> Result:
    """Return a result with the warning, if there is one and the answer is JSON."""
    answer = found.answer if isinstance(found, Counted) else found
    if warning and isinstance(answer, dict):
        answer["warning"] = warning
    return found


def arguments(request: Request, operation: Operation) -> tuple[dict[str, Any], str]:
    """Return the value of each parameter of an operation, and a warning about a text that was not escaped, or "".

    Raises:
        ApiError: a parameter is not valid, or a GET has a body, whose fields would be ignored (400).
    """
    if operation.method == "GET":
        refuse_body(request)
        return parse(request, operation.parameters, {}), ""
    if is_stream(request, operation):
        values = parse(request, operation.parameters, {})
        if operation.lines and media_type(request) != NDJSON:
            raise ApiError("unsupported_type", f"Send {NDJSON}.")
        return values, ""
    limits = Limits(request.settings.max_message_bytes) if operation.is_new(request) else BY_REDIS
    max_bytes = max_body_bytes(operation, limits, request.settings.max_body_bytes)
    fields = read_fields(request, max_bytes, operation.raw_body)
    values = parse(request, operation.parameters, fields, limits)
    if not operation.takes_messages:
        release_memory(request)  # the body is gone, and the request may wait a long time
    changed = [name for name, value in fields.items() if type(value) is Unescaped]
    return values, UNESCAPED.format(", ".join(changed)) if changed else ""


def max_body_bytes(operation: Operation, limits: Limits, setting: int) -> int:
    """Return the maximum size of a body: the setting, less if it has no messages, more if the message is not new."""
    if not operation.takes_messages:
        return min(setting, MAX_FIELDS_BYTES)
    return setting if limits.is_new else max(setting, limits.max_bytes)


def refuse_idempotency_key(request: Request) -> None:
    """Refuse an Idempotency-Key (400) that would be ignored: a repeated request would do the work again."""
    if request.headers.get("Idempotency-Key") is not None:
        raise ApiError("bad_idempotency_key", "This request does not take an Idempotency-Key.")


def idempotency_key(request: Request) -> str | None:
    """Return the Idempotency-Key header; refuse one that is not 1 to 255 visible ASCII characters (400)."""
    key = request.headers.get("Idempotency-Key")
    if key is not None and not VISIBLE_ASCII.fullmatch(key):
        raise ApiError("bad_idempotency_key", "An Idempotency-Key has 1 to 255 visible ASCII characters.")
    return key
