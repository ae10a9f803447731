"""Every error of the API: a row for each code, and the conversion of exceptions into answers.

`raise ApiError("bad_name")` is all that a caller writes. docs/api.md and the OpenAPI document list the same rows.
"""

import json
from dataclasses import dataclass
from enum import Enum
from typing import Any

import redis
from werkzeug.exceptions import HTTPException

from broker.connections.errors import NotSent, error_text, find_fault
from broker.keys import NAME_RULE
from broker.models import Conflict, LeaseExpired, NotFound


class Raised(Enum):
    """Which requests can fail with a code."""

    ANY = "any"
    GET = "GET"
    POST = "POST"
    SOME = "some"  # those of the operations that list the code


ANY, GET, POST, SOME = Raised


@dataclass(frozen=True)
class ErrorCode:
    """One cause of failure: its status, its sentence for people, and what the caller can do.

    The fields of the answer fill the braces of the sentence. Some cases have a more precise sentence; this is the
    general one.
    """

    status: int
    sentence: str
    advice: str
    raised: Raised = SOME


REQUEST_ERRORS = {  # code -> row
    "empty": ErrorCode(200, "The queue is empty.", "Wait for a message with `wait`."),
    "paused": ErrorCode(
        200,
        "The queue is paused: no messages are delivered until it is resumed.",
        "Wait with `wait`, or `resume` the queue.",
    ),
    "limited": ErrorCode(
        200,
        "The limits of the queue are reached: no messages are delivered until they allow it.",
        "Wait with `wait`, or try again after `retry_after` seconds.",
    ),
    "no_result": ErrorCode(200, "No result yet, or it has expired.", "Wait for it with `wait`."),
    "bad_request": ErrorCode(400, "The request is not valid HTTP.", "Use an HTTP client.", ANY),
    "bad_name": ErrorCode(400, f"A queue name has {NAME_RULE} and no others.", "Use another name.", ANY),
    "bad_parameter": ErrorCode(
        400,
        "A parameter is missing, out of range or of the wrong type.",
        "Correct the parameter that `parameter` names.",
        ANY,
    ),
    "unknown_parameter": ErrorCode(
        400,
        "Unknown parameter.",
        "Correct the name that `parameter` gives. In a form, escape `&` with `--data-urlencode`.",
        ANY,
    ),
    "duplicate_key": ErrorCode(
        400,
        "A parameter, or a field of the body, is given twice.",
        "Send it once. Duplicate keys within a message are not an error.",
        ANY,
    ),
    "bad_json": ErrorCode(400, "The body is not valid JSON, or not a JSON object.", "Correct it.", POST),
    "bad_form": ErrorCode(
        400,
        "The form has an empty field, or too many fields.",
        "Send JSON, or escape `&` with `--data-urlencode`.",
        POST,
    ),
    "unexpected_body": ErrorCode(
        400,
        "A GET takes its parameters from the query string; send no body.",
        "Move the fields to the query string.",
        GET,
    ),
    "bad_utf8": ErrorCode(
        400,
        "A text is not valid UTF-8, or contains a lone surrogate.",
        "Send bytes as `application/octet-stream` or as base64.",
        ANY,
    ),
    "bad_base64": ErrorCode(400, "The base64 of a message is not valid.", "Correct it."),
    "bad_message": ErrorCode(400, "Send either message or messages.", "Send `message` for one, `messages` for many."),
    "empty_message": ErrorCode(400, "A message must not be empty or null.", "Send at least one byte."),
    "too_deep": ErrorCode(
        400, "The JSON is nested deeper than {limit} levels.", "Send the JSON as a string, or flatten it.", POST
    ),
    "incomplete_body": ErrorCode(400, "The body ended early, or its chunks are malformed.", "Send it again.", ANY),
    "bad_idempotency_key": ErrorCode(
        400,
        "The Idempotency-Key is malformed, or this request does not take one.",
        "Send 1 to 255 visible ASCII characters, and only to an operation that takes a key.",
        ANY,
    ),
    "same_queue": ErrorCode(400, "Messages cannot be moved to the queue that they are in.", "Name another queue."),
    "untrusted_host": ErrorCode(
        400, "Untrusted Host header. Add the name to TRUSTED_HOSTS.", "Or use `localhost` or the IP address.", ANY
    ),
    "token_required": ErrorCode(
        401, "Missing or wrong token. Send the header Authorization: Bearer TOKEN.", "Send a valid token.", ANY
    ),
    "cross_site": ErrorCode(
        403, "Cross-site request refused.", "Call from a program, or from the app's own page.", ANY
    ),
    "read_only": ErrorCode(403, "This token is read-only (READ_TOKEN).", "Use a token from `API_TOKEN`.", POST),
    "attached_list": ErrorCode(
        403,
        "This list belongs to another program.",
        "Use that program; `LISTS_WRITABLE` allows some changes. If the queue is yours although `attached` says "
        "`sidekiq`, add its name to `OWN_LISTS`.",
        ANY,
    ),
    "not_found": ErrorCode(404, "Not found.", "Check the path.", ANY),
    "method_not_allowed": ErrorCode(405, "Method not allowed.", "Use a method that `Allow` lists.", ANY),
    "body_timeout": ErrorCode(408, "The body did not arrive in time.", "Send it faster, or in parts.", ANY),
    "stale": ErrorCode(
        409,
        "The lease has ended, the message has moved, or its undo has expired. Nothing was changed.",
        "List the messages again. `stale` has the ids that are not held.",
    ),
    "conflict": ErrorCode(
        409,
        "This Idempotency-Key was already used with a different request. Nothing was changed.",
        "Use a new key for each request.",
    ),
    "body_too_large": ErrorCode(
        413,
        "The body is larger than {limit} bytes.",
        "Send a stream of lines. `MAX_BODY_BYTES` sets the limit; operations without messages allow less.",
        POST,
    ),
    "message_too_large": ErrorCode(
        413,
        "A message is larger than {limit} bytes.",
        "Send a reference instead of the content, or raise `MAX_MESSAGE_BYTES`.",
    ),
    "too_many_messages": ErrorCode(
        413,
        "A list has more than {limit} messages.",
        "Send several lists, or a stream of lines (`application/x-ndjson`).",
    ),
    "too_many_values": ErrorCode(
        413,
        "A list of messages has more than {limit} JSON values.",
        "Send several lists, or a stream of lines (`application/x-ndjson`).",
        POST,
    ),
    "uri_too_long": ErrorCode(414, "The URL is longer than 8,190 bytes.", "Move parameters to the body.", ANY),
    "unsupported_type": ErrorCode(
        415, "Unsupported content type or charset.", "Send one that the operation lists, in UTF-8.", POST
    ),
    "unsupported_encoding": ErrorCode(
        415, "The body is compressed, or has an unsupported Transfer-Encoding.", "Send it uncompressed.", ANY
    ),
    "expectation_failed": ErrorCode(417, "Unsupported Expect header.", "Send `100-continue`, or none.", ANY),
    "too_many_attempts": ErrorCode(
        429, "Too many wrong tokens from this address. A valid token is always accepted.", "Correct the token.", ANY
    ),
    "too_many_blocked_clients": ErrorCode(
        429, "Too many blocked clients (limit {limit}). Try again later.", "Try again, or raise `MAX_BLOCKED_CLIENTS`."
    ),
    "request_header_fields_too_large": ErrorCode(
        431, "A header is longer than 8,190 bytes, or there are more than 100.", "Send fewer or shorter headers.", ANY
    ),
    "internal": ErrorCode(500, "Internal error; the server's log has the details.", "See the log.", ANY),
    "too_many_bodies": ErrorCode(
        503, "Too many large bodies are being read. Nothing was changed.", "Try again in a second.", POST
    ),
}

REDIS_ERRORS = {  # code -> row; a row of FAULTS in broker/connections/errors.py can have a more precise sentence
    "wrong_type": ErrorCode(
        409, "The queue's key in Redis is not a list.", "Use another name, or another `QUEUE_PREFIX`.", ANY
    ),
    "cross_slot": ErrorCode(
        409, "The two queues are in different Cluster slots. Nothing was moved.", "Pop from one and push to the other."
    ),
    "busy": ErrorCode(503, "All connections to Redis are in use. Nothing was changed.", "Try again.", ANY),
    "redis_unavailable": ErrorCode(503, "Cannot reach Redis. Nothing was changed.", "Try again.", ANY),
    "redis_loading": ErrorCode(503, "Redis is loading its data after a start.", "Try again.", ANY),
    "redis_readonly": ErrorCode(
        503, "This Redis is a read-only replica, or has too few replicas.", "Try again; check `REDIS_URL`.", ANY
    ),
    "redis_busy": ErrorCode(
        503, "Redis is running a long script, or cannot take more clients or commands.", "Try again.", ANY
    ),
    "redis_misconfigured": ErrorCode(
        503,
        "Redis refused the command: wrong password, missing permissions, cluster mode, or a disk error.",
        "Correct the cause that `message` names.",
        ANY,
    ),
    "disk_full": ErrorCode(
        503, "The disk on which Redis keeps the messages is full. Nothing was changed.", "Free some space there.", ANY
    ),
    "redis_too_old": ErrorCode(
        503, "This Redis is too old for this operation; it needs version 6.2 or later.", "Upgrade Redis.", ANY
    ),
    "redis_error": ErrorCode(503, "Redis refused the command.", "See `message`.", ANY),
    "outcome_unknown": ErrorCode(
        503,
        "The outcome is unknown: the connection broke before Redis replied.",
        "Check whether it was done. With an `Idempotency-Key`, repeating it is safe.",
        POST,
    ),
    "redis_full": ErrorCode(
        507, "Redis is out of memory. Nothing was stored.", "Pop messages, or give Redis more memory."
    ),
}

ERRORS = REQUEST_ERRORS | REDIS_ERRORS
HEADERS = {401: {"WWW-Authenticate": "Bearer"}, 429: {"Retry-After": "1"}, 503: {"Retry-After": "1"}}  # by status


class ApiError(Exception):
    """A request that fails. Raised anywhere, rendered by the one error handler."""

    def __init__(self, error: str, message: str = "", headers: dict[str, str] | None = None, **details: Any) -> None:
        """Fail with a code of ERRORS. `message` replaces its sentence where that is not precise enough.

        The details become fields of the answer, and fill the braces of the sentence.
        """
        row = ERRORS[error]
        self.error = error
        self.status = row.status
        self.message = message or row.sentence.format(**details)
        self.headers = headers or HEADERS.get(row.status, {})
        self.details = details
        super().__init__(self.message)

    def with_details(self, **details: Any) -> "ApiError":
        """Return this error with more fields in its answer; fields that it already has are kept."""
        return ApiError(self.error, self.message, self.headers, **(details | self.details))

    def answer(self) -> dict[str, Any]:
        """Return the JSON answer."""
        return {"success": False, "error": self.error, "message": self.message, **self.details}


def from_exception(error: Exception, reading: bool) -> ApiError:
    """Return the ApiError for any exception.

    `reading`: the request changes nothing, so a lost reply leaves nothing in doubt.
    """
    if isinstance(error, ApiError):
        return error
    if isinstance(error, LeaseExpired):
        message = "These leases have ended, or never existed. Nothing was changed."
        return ApiError("stale", message, stale=error.ids)
    if isinstance(error, NotFound):
        return ApiError("stale", "The message has moved, or its undo has expired. Nothing was changed.")
    if isinstance(error, Conflict):
        return ApiError("conflict")
    if isinstance(error, redis.RedisError):
        return from_redis(error, reading)
    if isinstance(error, HTTPException):
        return _from_http(error)
    unexpected = ApiError("internal")
    unexpected.__cause__ = error  # which `record_error` logs
    return unexpected


def _from_http(error: HTTPException) -> ApiError:
    """Return the error for a request that Flask refused."""
    if error.code == 404:
        return ApiError("not_found")
    if error.code == 405:
        allowed = sorted(getattr(error, "valid_methods", None) or [])
        methods = " or ".join(method for method in allowed if method not in ("HEAD", "OPTIONS"))
        return ApiError("method_not_allowed", f"Method not allowed; use {methods}.", {"Allow": ", ".join(allowed)})
    found = ApiError("bad_request", error.description or error.name)
    found.status = error.code or found.status
    return found


def from_redis(error: redis.RedisError, reading: bool = False) -> ApiError:
    """Return the ApiError for a Redis error. `reading`: as in `from_exception`."""
    if fault := find_fault(error):
        return ApiError(fault.code, fault.message)
    if isinstance(error, NotSent):
        server, reason = error.server and f" at {error.server}", error.reason and f" ({error.reason})"
        return ApiError("redis_unavailable", f"Cannot reach Redis{server}{reason}. Nothing was changed.")
    if isinstance(error, redis.AuthenticationError):
        return ApiError("redis_misconfigured", "Redis refuses the password in REDIS_URL.")
    if isinstance(error, redis.MaxConnectionsError):
        return ApiError("busy")
    if isinstance(error, (redis.ResponseError, redis.DataError)):
        return ApiError("redis_error", f"Redis refused: {error_text(error)[:200]}.")
    if reading:
        return ApiError("redis_unavailable", "Redis did not reply.")
    return ApiError("outcome_unknown")


def quoted(text: str) -> str:
    """Return a text in quotes for use in a sentence: truncated, on one line, in printable ASCII."""
    return json.dumps(text[:60]).replace("\x7f", "\\u007f")
