"""Record each answer: count it for /metrics, log the reason of a 5xx, and with LOG_REQUESTS=1 log every request.

The work of a request is done by then, and its answer must not be lost. So what cannot be recorded is dropped.
"""

import json
import logging
import os
import select
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from functools import wraps
from typing import Any, ParamSpec

from web.errors import REDIS_ERRORS, ApiError
from web.request import Request
from web.services import Services

MAX_PATH = 300  # characters of a path in a log: a short line stays whole, whatever other processes write
MAX_QUEUE = 128  # characters of a queue's name; with these two a line has less than the 4,096 bytes of a pipe's page
# The fields of an answer that say how many messages were changed.
CHANGES = ("pushed", "imported", "removed", "cleared", "restored", "moved", "acked", "released", "dead", "extended")

P = ParamSpec("P")

log = logging.getLogger(__name__)


def _dropped_on_failure(record: Callable[P, None]) -> Callable[P, None]:
    """Drop what cannot be recorded. Only the first failure of a process is logged."""
    has_failed = False

    @wraps(record)
    def attempt(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            record(*args, **kwargs)
        except Exception as error:
            nonlocal has_failed
            if not has_failed:
                has_failed = True
                bug = None if isinstance(error, OSError) else error
                log.warning("Cannot %s: %s; this is reported once.", record.__name__, error, exc_info=bug)

    return attempt


def label_of(environ: dict[str, Any]) -> str:
    """Return the metrics label of a request: the route that Flask found, "page" for pages, "other" without a route."""
    request = environ.get("werkzeug.request")
    blueprint, _, name = ((request and request.endpoint) or "other").rpartition(".")
    return "page" if blueprint == "pages" and environ["REQUEST_METHOD"] in ("GET", "HEAD") else name


@_dropped_on_failure
def record_error(request: Request, error: ApiError) -> None:
    """Count an error of Redis, and log the reason of a 5xx."""
    if error.error in REDIS_ERRORS:
        request.services.counters.increment(("redis_errors", error.error))
    if error.status >= 500 and (more := request.services.log_limit.admit(error.error)) is not None:
        path = ascii(request.path[:MAX_PATH])
        server = f" [{request.settings.storage}]" if error.error in REDIS_ERRORS else ""
        line = f"{error.status} {error.error}: {request.method} {path}: {error.message}{server}{more}"
        log.warning("%s", line, exc_info=error.__cause__ if error.error == "internal" else None)


@_dropped_on_failure
def record_messages(services: Services, operation: str, queue: str, answer: Any) -> None:
    """Count the messages in the answer of an operation."""
    services.counters.count_messages(operation, queue, answer)
    services.history.add_answer(operation, queue, answer)


@_dropped_on_failure
def record_change(request: Request, operation: str, queue: str, answer: Any) -> None:
    """Log who changed a queue, if a proxy says who it is: one line, without the messages."""
    if request.user and request.method == "POST" and _has_changed(answer):
        line = {
            "time": _now(),
            "user": request.user,
            "operation": operation,
            "queue": queue[:MAX_QUEUE],
            "messages": messages_changed(answer),
            "client": request.environ.get("REMOTE_ADDR", ""),
        }
        log_request(json.dumps(line) + "\n")


def _has_changed(answer: Any) -> bool:
    return bool(answer["success"] if isinstance(answer, dict) else answer.status_code == 200)


def messages_changed(answer: Any) -> int:
    """Return the number of messages that a change was about: 0 for one of the queue itself, such as a pause."""
    if not isinstance(answer, dict):
        return 1  # the message itself
    if numbers := [answer[name] for name in CHANGES if type(answer.get(name)) is int]:
        return sum(numbers)
    return len(answer["messages"]) if "messages" in answer else int("message" in answer)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


@_dropped_on_failure
def record_answer(
    services: Services, environ: dict[str, Any], label: str, queue: str, status: str, seconds: float
) -> None:
    """Count an answer that begins after some seconds, under the id of its operation or the label of its route.

    With LOG_REQUESTS also log it, without query, header or body: no token, cookie or message gets into a log.
    """
    services.counters.count_request(label, status[:3], seconds)
    if services.settings.log_requests:
        line = {
            "time": _now(),
            "method": environ["REQUEST_METHOD"],
            "path": environ["PATH_INFO"][:MAX_PATH],
            "status": int(status[:3]),
            "seconds": round(seconds, 6),
            "queue": queue[:MAX_QUEUE],
            "client": environ.get("REMOTE_ADDR", ""),
        }
        log_request(json.dumps(line) + "\n")


@_dropped_on_failure
def log_request(line: str) -> None:
    """Print a line. A write to a full pipe would block this process for as long as nobody reads, so it is dropped."""
    if sys.stdout and not select.select((), (sys.stdout,), (), 0)[1]:
        raise BlockingIOError("Nobody reads standard output")
    if sys.stdout:
        os.write(sys.stdout.fileno(), line.encode())
