"""Records each answer: counts it for /metrics, logs why it is a 5xx, and logs every request if LOG_REQUESTS is set."""

import json
import logging
from datetime import UTC, datetime
from typing import Any

from web.errors import REDIS_CODES, ApiError
from web.request import Request
from web.services import Services

MAX_PATH = 300  # characters of an address in a log: a short line stays whole, whatever other processes write

# What is not a verb of a queue is recorded by the kind of its address; anything else there is "other".
KINDS = {
    "/": "page",
    "/queues": "page",
    "/login": "login",
    "/logout": "logout",
    "/api/queues": "queues",
    "/api/events": "all_events",
    "/api/openapi.json": "openapi",
    "/api/docs": "page",
    "/healthz": "healthz",
    "/metrics": "metrics",
}

log = logging.getLogger(__name__)


def kind_of(path: str) -> str:
    """Return what an address that is not a verb's is called in metrics."""
    if kind := KINDS.get(path):
        return kind
    return "page" if path.startswith("/q/") else "static" if path.startswith("/static/") else "other"


def record_error(request: Request, error: ApiError) -> None:
    """Count an error of Redis, and log the reason of a 5xx."""
    if error.error in REDIS_CODES:
        request.services.counters.add(("redis_errors", error.error))
    if error.status >= 500:
        log.warning(
            "%d %s: %s %s: %s", error.status, error.error, request.method, ascii(request.path[:MAX_PATH]), error.message
        )


def record_messages(services: Services, verb: str, queue: str, answer: Any) -> None:
    """Count the messages that a verb's answer tells of."""
    services.counters.add_messages(verb, queue, answer)
    services.history.add_answer(verb, queue, answer)


def record_answer(
    services: Services, environ: dict[str, Any], kind: str, queue: str, status: str, seconds: float
) -> None:
    """Count an answer that begins after some seconds, and log it if that is wanted. `kind` is a verb, or of KINDS.

    The log has no query, header or body, so no token, cookie or message.
    """
    services.counters.add_request(kind, status[:3], seconds)
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
