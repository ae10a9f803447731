"""Records each answer: counts it for /metrics, logs the reason of a 5xx, and every request if LOG_REQUESTS is 1."""

import json
import logging
from datetime import UTC, datetime
from typing import Any

from web.errors import REDIS_ERRORS, ApiError
from web.request import Request
from web.services import Services

MAX_PATH = 300  # characters of a path in a log: a short line stays whole, whatever other processes write

log = logging.getLogger(__name__)


def label_of(environ: dict[str, Any]) -> str:
    """Return what metrics call the route that Flask found for a request: "page" for a page, "other" without a route."""
    request = environ.get("werkzeug.request")
    blueprint, _, name = ((request and request.endpoint) or "other").rpartition(".")
    return "page" if blueprint == "pages" and environ["REQUEST_METHOD"] in ("GET", "HEAD") else name


def record_error(request: Request, error: ApiError) -> None:
    """Count an error of Redis, and log the reason of a 5xx."""
    if error.error in REDIS_ERRORS:
        request.services.counters.increment(("redis_errors", error.error))
    if error.status >= 500 and (more := request.services.log_limit.admit(error.error)) is not None:
        path = ascii(request.path[:MAX_PATH])
        line = f"{error.status} {error.error}: {request.method} {path}: {error.message}{more}"
        log.warning("%s", line, exc_info=error.__cause__ if error.error == "internal" else None)


def record_messages(services: Services, operation: str, queue: str, answer: Any) -> None:
    """Count the messages in the answer of an operation."""
    services.counters.count_messages(operation, queue, answer)
    services.history.add_answer(operation, queue, answer)


def record_answer(
    services: Services, environ: dict[str, Any], label: str, queue: str, status: str, seconds: float
) -> None:
    """Count an answer that begins after some seconds, under the id of its operation or the label of its route.

    With LOG_REQUESTS also log it, without query, header or body: no token, cookie or message gets into a log.
    """
    services.counters.count_request(label, status[:3], seconds)
    if services.settings.log_requests:
        line = {
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "method": environ["REQUEST_METHOD"],
            "path": environ["PATH_INFO"][:MAX_PATH],
            "status": int(status[:3]),
            "seconds": round(seconds, 6),
            "queue": queue[:MAX_PATH],
            "client": environ.get("REMOTE_ADDR", ""),
        }
        print(json.dumps(line), flush=True)
